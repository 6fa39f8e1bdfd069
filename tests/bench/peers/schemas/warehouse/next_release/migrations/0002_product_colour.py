from typing import Any, ClassVar

from django.db import migrations, models


class Migration(migrations.Migration):  # type: ignore[misc]
    """What a release adds; settings say whether it is out yet."""

    dependencies: ClassVar[list[Any]] = [("warehouse", "0001_initial")]

    operations: ClassVar[list[Any]] = [
        migrations.AddField(model_name="product", name="colour", field=models.TextField(null=True)),
    ]
