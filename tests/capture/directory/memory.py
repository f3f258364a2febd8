"""Dev stand-in for TreeWriter/Stored until merged."""
from ckptlog.formats import branch, chunk
from ckptlog.formats.branch import Link, BYTES, LEAF, BRANCH
from ckptlog.model.event import Reference
import msgspec
class Root:
    def __init__(s, reference): s.reference=reference
class Stored(Root):
    def __init__(s, reference, chunks): s.reference=reference; s.chunks=chunks
    def read(s, digest, domain): return s.chunks[digest]
    def manifest(s):
        from ckptlog.capture.directory.manifest import load
        return load(s.reference, s.read)
    def entries(s): return s.manifest().entries
class Map:
    def __init__(s): s.parts=[b"{"]; s.first=True
    def add(s,key,pieces):
        s.parts.append((b"" if s.first else b",")+msgspec.json.encode(key)+b":"); s.first=False
        s.parts+=pieces
    def finish(s): return s.parts+[b"}"]
class Writer:
    def __init__(s, chunks): s.chunks=chunks
    def put(s, domain, raw):
        d=chunk.digest_of(domain, raw); s.chunks[d]=raw; return d
    def raw(s, pieces):
        links=[]; n=0
        for p in pieces:
            p=bytes(p); links.append(Link(LEAF, s.put(chunk.LEAF,p), len(p))); n+=len(p)
        return Link(BYTES, s.put(chunk.BRANCH, branch.encode(links)), n)
    def mapping(s): return Map()
    def value(s,v): return [msgspec.json.encode(v)]
    def keep(s, before): return Root(before.reference)
    def root(s, pieces):
        parts=[]
        for p in pieces:
            if isinstance(p,bytes) and parts and isinstance(parts[-1],bytes): parts[-1]+=p
            else: parts.append(p)
        raw=branch.encode(parts)
        from ckptlog.blobs.tree import text_size
        return Root(Reference("tree", s.put(chunk.BRANCH, raw).hex(), sum(len(p) if isinstance(p,bytes) else text_size(p) for p in parts)))
class Memory:
    def __init__(self): self.chunks={}
    @property
    def size(self): return sum(map(len,self.chunks.values()))
    def write(self, snapshot, before=None):
        root=snapshot.write(Writer(self.chunks), before); return Stored(root.reference, self.chunks)
    def payload(self, wire): 
        w=Writer(self.chunks); return Stored(w.root([wire]).reference, self.chunks)
    def capture(self, component, before=None):
        s=component.capture()
        try: root=s.write(Writer(self.chunks), before)
        finally: s.close()
        return Stored(root.reference, self.chunks)
