//! The list of options, for messages and help.

/// The options, one a line, for messages and help.
pub const KEYS: &str = "  \
  size=BYTES        of each namespace (K, M, G, T): makes the file of file= if there is none
  lba=512|4096      block size; lba=512+4096: one for each namespace
  ms=BYTES          metadata per block: 0, 8, 16 or 64; ms=0+8: one for each namespace
  pi=TYPE           protection information in the metadata, 1 to 3, or 0; pi=0+1
  extended=true     metadata at the end of each block, not in a buffer of its own
  pi-first=true     protection information in the first bytes of the metadata
  guard=16|32|64    bits of the guard of protection information
  sts=BITS          bits of the storage tag
  namespaces=N      1 to 1024
  nn=N              the most namespaces that hosts can create, up to 1024
  file=PATH         keep the data in this file (a comma in its name: two)
  ro=true           write nothing: the namespaces are write protected
  null=true         move no data
  populate=true     take all memory for the data before the start
  latency=TIME      complete each I/O command no sooner than this (50us, 1ms)
  mdts=BYTES        the most bytes of a command, a power of two from 8K to 1G
  queues=N          I/O queues of each kind, 0 (none are granted) to 1024
  depth=N           the most entries of an I/O queue, 1 (no use) to 65536
  vectors=N         MSI-X vectors, 0 to 2048
  msi=N             MSI messages: 0, or a power of two up to 32
  intx=true         have an interrupt pin
  wrr=true          have weighted round robin
  dbbuf=true        have shadow doorbells (Doorbell Buffer Config)
  version=1.4|2.1   of the Base specification, with what is mandatory since (1.4)
  ana=STATE         of access: optimized, non-optimized, inaccessible, persistent-loss, change
  css=N             the command sets (CAP.CSS), 0 to 255 or hexadecimal (0x80)
  sgl=false|dwords  have no scatter gather lists, or of whole dwords only
  prps=N            fail transfers of more PRPs, as some targets do, at least 2
  awun=BLOCKS       written as a whole, up to 1 MiB (AWUN)
  awupf=BLOCKS      the same when power fails (AWUPF)
  nawun=BLOCKS      awun= of each namespace
  nawupf=BLOCKS     awupf= of each namespace
  nabsn=BLOCKS      between two boundaries
  nabspf=BLOCKS     the same when power fails
  nabo=BLOCK        the first such boundary
  mpsmin=BYTES      the least memory page, a power of two from 4K to 128M
  zoned=true        namespaces with zones; zoned=false+true: one for each
  zone-size=BYTES   of a zone, 16M by default
  zone-capacity=BYTES  of a zone that can be written
  max-open=N        open zones, max-active=N active ones
  max-active=N
  zasl=BYTES        the most bytes of a Zone Append, a power of two
  zrwa=BYTES        random write area of a zone, up to 16M
  zrwas=N           the most zones with such an area, 16 by default
  zde=BYTES         descriptor extension of a zone, a multiple of 64
  cross-zone-reads=true  reads may cross the boundary of two zones
  read-only-zones=N at the end of each zoned namespace
  fdp=true          have flexible data placement
  fdp-handles=N     reclaim unit handles, 1 to 128, 8 by default
  fdp-groups=N      reclaim groups, 1 to 256
  fdp-unit=BYTES    of a reclaim unit, 64M by default
  kv=true           namespaces with keys and values; kv=false+true: one for each
  kv-key=BYTES      the most of a key, 1 to 16
  kv-value=BYTES    the most of a value, as mdts= by default
  kv-keys=N         the most keys of a namespace
  vfs=N             be a primary controller with N secondary ones, up to 8
  vf=K              open secondary controller K of that with vfs= and this serial=
  faults=FILE       fail as the plan in this file says
  cmb=SIZE          controller memory buffer, a power of two from 64K to 256M (0)
  pmr=SIZE          persistent memory region, a power of two from 64K to 256M (0)
  boot-partitions=SIZE  of each of two boot partitions, a multiple of 128K up to 16M (0)
  hmb=SIZE          memory of the host that the controller wishes to use (0)
  serial=TEXT       1 to 20 printable ASCII characters";
