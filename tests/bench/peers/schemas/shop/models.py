import uuid

from django.db import models


class Product(models.Model):  # type: ignore[misc]
    """The columns of Strata's product."""

    id = models.UUIDField(primary_key=True, default=uuid.uuid4)
    sku = models.TextField(unique=True)
    name = models.TextField()
    barcode = models.TextField(null=True)  # noqa: DJ001 - as compared with
    unit = models.TextField(default="each")
    weight_grams = models.BigIntegerField(null=True)
    attributes = models.JSONField(default=dict)
    expiry_policy = models.TextField(default="none")
    active = models.BooleanField(default=True)
    version = models.BigIntegerField(default=1)
    created_at = models.DateTimeField(auto_now_add=True)
    updated_at = models.DateTimeField(auto_now=True)

    class Meta:
        app_label = "shop"

    def __str__(self) -> str:
        return str(self.sku)
