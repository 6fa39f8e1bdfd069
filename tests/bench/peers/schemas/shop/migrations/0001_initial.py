import uuid
from typing import Any, ClassVar

from django.db import migrations, models


class Migration(migrations.Migration):  # type: ignore[misc]
    initial = True

    dependencies: ClassVar[list[Any]] = []

    operations: ClassVar[list[Any]] = [
        migrations.CreateModel(
            name="Product",
            fields=[
                ("id", models.UUIDField(default=uuid.uuid4, primary_key=True, serialize=False)),
                ("sku", models.TextField(unique=True)),
                ("name", models.TextField()),
                ("barcode", models.TextField(null=True)),
                ("unit", models.TextField(default="each")),
                ("weight_grams", models.BigIntegerField(null=True)),
                ("attributes", models.JSONField(default=dict)),
                ("expiry_policy", models.TextField(default="none")),
                ("active", models.BooleanField(default=True)),
                ("version", models.BigIntegerField(default=1)),
                ("created_at", models.DateTimeField(auto_now_add=True)),
                ("updated_at", models.DateTimeField(auto_now=True)),
            ],
        ),
    ]
