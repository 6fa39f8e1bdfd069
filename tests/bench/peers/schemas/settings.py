"""A django-tenants project as its documentation sets one up, trimmed to what a JSON API needs. Runs in .venv-bench."""

import os
from urllib.parse import unquote, urlsplit

_database = urlsplit(os.environ["BENCH_DATABASE_URL"])

SECRET_KEY = "of-a-benchmark"
DEBUG = False
ALLOWED_HOSTS = ["*"]
USE_TZ = True

SHARED_APPS = ["django_tenants", "django.contrib.contenttypes", "tests.bench.peers.schemas.customers"]
TENANT_APPS = ["tests.bench.peers.schemas.shop"]
INSTALLED_APPS = [*SHARED_APPS, *TENANT_APPS]
TENANT_MODEL = "customers.Client"
TENANT_DOMAIN_MODEL = "customers.Domain"
DATABASE_ROUTERS = ["django_tenants.routers.TenantSyncRouter"]
MIDDLEWARE = ["django_tenants.middleware.main.TenantMainMiddleware"]
ROOT_URLCONF = "tests.bench.peers.schemas.urls"
DEFAULT_AUTO_FIELD = "django.db.models.BigAutoField"

DATABASES = {
    "default": {
        "ENGINE": "django_tenants.postgresql_backend",
        "NAME": _database.path.lstrip("/"),
        "USER": _database.username,
        "PASSWORD": unquote(_database.password or ""),
        "HOST": _database.hostname,
        "PORT": _database.port,
        # Connections are kept, one a thread.
        "CONN_MAX_AGE": None,
    }
}
