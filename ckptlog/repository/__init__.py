"""Opens a store and composes log, blobs and views; the only room that does."""
