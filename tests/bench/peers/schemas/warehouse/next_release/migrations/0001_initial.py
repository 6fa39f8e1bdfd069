from importlib import import_module

Migration = import_module("tests.bench.peers.schemas.warehouse.migrations.0001_initial").Migration
