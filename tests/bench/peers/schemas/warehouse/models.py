"""The tables of Strata's inventory as one writes them in Django: same columns, keys, indexes and checks, no tenant_id."""

import uuid

from django.db import models
from django.db.models import Q


class Row(models.Model):  # type: ignore[misc]
    id = models.UUIDField(primary_key=True, default=uuid.uuid4)

    class Meta:
        abstract = True
        app_label = "warehouse"


class Versioned(Row):
    active = models.BooleanField(default=True)
    version = models.BigIntegerField(default=1)
    created_at = models.DateTimeField(auto_now_add=True)
    updated_at = models.DateTimeField(auto_now=True)

    class Meta(Row.Meta):
        abstract = True


def check(table: str, name: str, condition: Q) -> models.CheckConstraint:
    return models.CheckConstraint(condition=condition, name=f"ck_{table}_{name}")


def refers_to(model: str) -> models.ForeignKey:
    """Without an index of its own: ours has none on most, and Django would add one on each."""
    return models.ForeignKey(model, on_delete=models.PROTECT, related_name="+", db_index=False)


class Product(Versioned):
    sku = models.TextField(unique=True)
    name = models.TextField()
    barcode = models.TextField(null=True)  # noqa: DJ001 - as compared with, here and below
    unit = models.TextField(default="each")
    weight_grams = models.BigIntegerField(null=True)
    attributes = models.JSONField(default=dict)
    expiry_policy = models.TextField(default="none")

    class Meta(Versioned.Meta):
        indexes = (models.Index(fields=["barcode"], name="ix_product_barcode", condition=Q(barcode__isnull=False)),)
        constraints = (
            check("product", "sku", Q(sku__regex=r"^\S.{0,62}$")),
            check("product", "name", ~Q(name="")),
            check("product", "unit", ~Q(unit="")),
            check("product", "barcode", ~Q(barcode="")),
            check("product", "weight", Q(weight_grams__gte=0)),
            check("product", "attributes", ~Q(attributes=None)),
            check("product", "expiry_policy", Q(expiry_policy__in=("none", "optional", "required"))),
            check("product", "version", Q(version__gt=0)),
        )

    def __str__(self) -> str:
        return str(self.sku)


class Warehouse(Versioned):
    code = models.TextField(unique=True)
    name = models.TextField()

    class Meta(Versioned.Meta):
        constraints = (
            check("warehouse", "code", ~Q(code="")),
            check("warehouse", "name", ~Q(name="")),
            check("warehouse", "version", Q(version__gt=0)),
        )

    def __str__(self) -> str:
        return str(self.code)


class Zone(Versioned):
    warehouse = refers_to("Warehouse")
    code = models.TextField()
    name = models.TextField()

    class Meta(Versioned.Meta):
        constraints = (
            models.UniqueConstraint(fields=["warehouse", "code"], name="uq_zone"),
            check("zone", "code", ~Q(code="")),
            check("zone", "name", ~Q(name="")),
            check("zone", "version", Q(version__gt=0)),
        )

    def __str__(self) -> str:
        return str(self.code)


class Bin(Versioned):
    zone = models.ForeignKey("Zone", on_delete=models.PROTECT, related_name="+")
    code = models.TextField(unique=True)

    class Meta(Versioned.Meta):
        constraints = (check("bin", "code", ~Q(code="")), check("bin", "version", Q(version__gt=0)))

    def __str__(self) -> str:
        return str(self.code)


class StockBalance(Row):
    product = refers_to("Product")
    bin = refers_to("Bin")
    batch = models.TextField(default="")
    expires_on = models.DateField(null=True)
    on_hand = models.BigIntegerField(default=0)
    sequence = models.BigIntegerField(default=0)
    created_at = models.DateTimeField(auto_now_add=True)
    updated_at = models.DateTimeField(auto_now=True)

    class Meta(Row.Meta):
        indexes = (models.Index(fields=["bin", "product", "batch"], name="ix_stock_balance_bin"),)
        constraints = (
            models.UniqueConstraint(fields=["product", "bin", "batch"], name="uq_stock_balance"),
            check("stock_balance", "on_hand", Q(on_hand__gte=0)),
            check("stock_balance", "sequence", Q(sequence__gte=0)),
        )

    def __str__(self) -> str:
        return f"{self.product_id} in {self.bin_id}"


class Movement(Row):
    kind = models.TextField()
    reference = models.TextField(null=True)  # noqa: DJ001
    reason = models.TextField(null=True)  # noqa: DJ001
    note = models.TextField(null=True)  # noqa: DJ001
    occurred_at = models.DateTimeField()
    created_at = models.DateTimeField(auto_now_add=True)
    created_by = models.TextField()
    reverses = models.OneToOneField("self", on_delete=models.PROTECT, null=True, related_name="+")

    class Meta(Row.Meta):
        indexes = (
            models.Index(fields=["reference"], name="ix_movement_reference", condition=Q(reference__isnull=False)),
        )
        constraints = (
            check("movement", "kind", Q(kind__in=("receive", "transfer", "pick", "adjust", "count", "reversal"))),
            check("movement", "reference", ~Q(reference="")),
            check("movement", "reason", ~Q(reason="")),
            check("movement", "note", ~Q(note="")),
        )

    def __str__(self) -> str:
        return str(self.kind)


class StockLedger(Row):
    movement = models.ForeignKey("Movement", on_delete=models.PROTECT, related_name="+")
    balance = refers_to("StockBalance")
    product_id = models.UUIDField()
    bin_id = models.UUIDField()
    batch = models.TextField()
    quantity = models.BigIntegerField()
    on_hand_after = models.BigIntegerField()
    sequence = models.BigIntegerField()
    created_at = models.DateTimeField(auto_now_add=True)

    class Meta(Row.Meta):
        indexes = (
            models.Index(fields=["product_id", "id"], name="ix_stock_ledger_product"),
            models.Index(fields=["bin_id", "id"], name="ix_stock_ledger_bin"),
        )
        constraints = (
            models.UniqueConstraint(fields=["balance", "sequence"], name="uq_stock_ledger"),
            check("stock_ledger", "quantity", ~Q(quantity=0)),
            check("stock_ledger", "on_hand_after", Q(on_hand_after__gte=0)),
            check("stock_ledger", "sequence", Q(sequence__gt=0)),
        )

    def __str__(self) -> str:
        return str(self.quantity)


class Idempotency(Row):
    key = models.TextField(unique=True)
    request_hash = models.BinaryField()
    status = models.SmallIntegerField(null=True)
    response = models.JSONField(null=True)
    created_at = models.DateTimeField(auto_now_add=True)

    class Meta(Row.Meta):
        constraints = (check("idempotency", "key", ~Q(key="")),)

    def __str__(self) -> str:
        return str(self.key)


class Quota(Row):
    name = models.TextField(unique=True)
    used = models.BigIntegerField(default=0)

    class Meta(Row.Meta):
        constraints = (check("quota", "used", Q(used__gte=0)),)

    def __str__(self) -> str:
        return str(self.name)


class ImportRun(Row):
    file_name = models.TextField()
    file_digest = models.BinaryField()
    mapping = models.TextField()
    options = models.JSONField(default=dict)
    state = models.TextField(default="pending")
    phase = models.TextField(default="")
    checkpoint = models.BigIntegerField(default=0)
    rows_read = models.BigIntegerField(default=0)
    lines_accepted = models.BigIntegerField(default=0)
    lines_refused = models.BigIntegerField(default=0)
    products_created = models.BigIntegerField(default=0)
    movements_posted = models.BigIntegerField(default=0)
    quantity_sum = models.BigIntegerField(default=0)
    opening_sum = models.BigIntegerField(default=0)
    failure = models.TextField(null=True)  # noqa: DJ001
    created_by = models.TextField()
    created_at = models.DateTimeField(auto_now_add=True)
    updated_at = models.DateTimeField(auto_now=True)
    finished_at = models.DateTimeField(null=True)

    class Meta(Row.Meta):
        constraints = (
            models.UniqueConstraint(fields=["file_digest", "mapping", "options"], name="uq_import_run"),
            check("import_run", "state", Q(state__in=("pending", "running", "done", "failed"))),
            check("import_run", "checkpoint", Q(checkpoint__gte=0)),
        )

    def __str__(self) -> str:
        return str(self.file_name)


class ImportRefusal(Row):
    run = models.ForeignKey("ImportRun", on_delete=models.CASCADE, related_name="+", db_index=False)
    row_number = models.BigIntegerField()
    code = models.TextField()
    message = models.TextField()
    source = models.JSONField()

    class Meta(Row.Meta):
        constraints = (
            models.UniqueConstraint(fields=["run", "row_number"], name="uq_import_refusal"),
            check("import_refusal", "row_number", Q(row_number__gt=0)),
        )

    def __str__(self) -> str:
        return str(self.code)
