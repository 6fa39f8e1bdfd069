from __future__ import annotations

from strata.platform.keys.local import LocalKeyPort
from strata.platform.keys.port import KeyPort
from strata.platform.on_demand import loaded
from strata.platform.settings import KeyProvider, Settings


def key_port(settings: Settings) -> KeyPort:
    match settings.keys.provider:
        case KeyProvider.LOCAL:
            return LocalKeyPort(settings.local_key_file)
        case KeyProvider.VAULT:
            # Its client is used by those alone who have a Vault.
            vault: KeyPort = loaded("strata.platform.keys.vault:VaultTransitKeyPort")(settings.keys.vault)
            return vault
