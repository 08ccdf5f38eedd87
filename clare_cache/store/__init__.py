"""The waist: cached tensors on disk, versioned, specified in docs/store-format.md."""

from clare_cache.store.check import StoreFault, verify
from clare_cache.store.lock import setup_lock
from clare_cache.store.place import Place, open_place, sweep
from clare_cache.store.reader import ArrayHandle, Store, features_of, open_store
from clare_cache.store.schema import ArrayEntry, CommitRecord, LedgerLine
from clare_cache.store.writer import BlockData, StoreWriter, create_store

__all__ = [
    "ArrayEntry",
    "ArrayHandle",
    "BlockData",
    "CommitRecord",
    "LedgerLine",
    "Place",
    "Store",
    "StoreFault",
    "StoreWriter",
    "create_store",
    "features_of",
    "open_place",
    "open_store",
    "setup_lock",
    "sweep",
    "verify",
]
