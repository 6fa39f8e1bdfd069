from __future__ import annotations

from strata.platform.keys.local import LocalKeyPort
from strata.platform.keys.port import KeyPort
from strata.platform.keys.vault import VaultTransitKeyPort
from strata.platform.settings import KeyProvider, Settings


def key_port(settings: Settings) -> KeyPort:
    match settings.keys.provider:
        case KeyProvider.LOCAL:
            return LocalKeyPort(settings.local_key_file)
        case KeyProvider.VAULT:
            return VaultTransitKeyPort(settings.keys.vault)
