use super::Options;

/// Options in the order in which they print: each of them but `faults=` is in one.
const TEXTS: [&str; 24] = [
    "",
    "size=64M",
    "size=4K,lba=512+4096,namespaces=3,file=/tmp/x y.img,latency=50us,mdts=4M,queues=3,depth=2,vectors=1,serial=a-1",
    "namespaces=2,nn=8",
    "null=true,latency=1500ns",
    "size=1052160,file=gpt.img,ro=true",
    "file=a,,b=c,,,,.img,serial=x,,y",
    "vectors=0,msi=32,intx=true",
    "intx=true,wrr=true,dbbuf=true,css=0x41",
    "queues=0,depth=1,css=0x80,hmb=64M,cmb=16M,pmr=64K,boot-partitions=256K,mpsmin=64K",
    "lba=512+4096,ms=8+64,pi=1+3,extended=true,namespaces=2",
    "ms=8,pi=2,pi-first=true,sts=16",
    "lba=4096,ms=16,pi=1,guard=32",
    "lba=4096,ms=64,pi=1,guard=32,sts=40",
    "version=2.1,ana=persistent-loss,css=0x41,sgl=dwords",
    "sgl=false,prps=33",
    "fdp=true,fdp-handles=128,fdp-groups=2,fdp-unit=96M",
    "size=64M,namespaces=2,zoned=false+true,zone-size=4M,zone-capacity=3M,max-open=3,max-active=5,zasl=16K,zrwa=64K,\
     zrwas=2,cross-zone-reads=true,read-only-zones=1",
    "namespaces=2,kv=false+true,kv-key=8,kv-value=4K,kv-keys=100",
    "namespaces=2,zoned=true+false,kv=false+true",
    "size=1M,vfs=2",
    "awun=2048,awupf=8,nawun=16,nawupf=4,nabsn=64,nabspf=32,nabo=5",
    "vf=8,serial=shared",
    "populate=true",
];

#[test]
fn options_print_as_they_were_parsed() {
    for text in TEXTS {
        assert_eq!(text.parse::<Options>().unwrap().to_string(), text);
    }
    assert_eq!("size=1GiB,lba=4k,latency=0".parse::<Options>().unwrap().to_string(), "size=1G,lba=4096");
    let named = "file=a,,b.img,,,ro=true".parse::<Options>().unwrap();
    assert_eq!((named.file, named.ro), (Some("a,b.img,".into()), true));
    let fractions = "size=1.5G,latency=0.5ms".parse::<Options>().unwrap();
    assert_eq!(fractions.to_string(), "size=1536M,latency=500us");
}

/// An error about a value is about that option only.
#[test]
fn a_wrong_value_lists_the_values_of_its_key() {
    for (text, part) in [
        ("size", "`key=value` is needed"),
        ("size=", "is not a size"),
        ("size=1000", "block size, 512"),
        ("size=1536,lba=4096", "block size, 4096"),
        ("size=99999999999T", "too large"),
        ("size=2000T", "1024T"),
        ("lba=1024", "512 and 4096"),
        ("lba=512+", "512 and 4096"),
        ("lba=512+4096", "namespaces=1"),
        ("lba=512,lba=4096", "given twice"),
        ("ms=7", "0, 8, 16 or 64"),
        ("ms=8+8", "namespaces=1"),
        ("ms=8,null=true", "null=true"),
        ("ms=64", "no format"),
        ("ms=8,pi=1,guard=64", "guard=64"),
        ("pi=4", "a type 1 to 3"),
        ("awun=65537", "0 to 65536 blocks"),
        ("awun=2049", "1 MiB"),
        ("nawupf=257,lba=4096", "1 MiB"),
        ("nabo=8,nabsn=8", "nabsn="),
        ("pi=1", "no format"),
        ("pi-first=1", "true or false"),
        ("guard=8", "16, 32 or 64"),
        ("sts=65", "0 to 64"),
        ("namespaces=0", "1 to 1024"),
        ("nn=1025", "1 to 1024"),
        ("nn=2,namespaces=3", "less than namespaces=3"),
        ("file=", "path"),
        ("null=1", "true or false"),
        ("ro=yes", "true or false"),
        ("latency=5", "5us, 5ms or 5s"),
        ("latency=61s", "at most 60s"),
        ("latency=99999999999999999999s", "not a time"),
        ("mdts=5000", "power of two"),
        ("mdts=4K", "8K to 1G"),
        ("queues=1025", "0 to 1024"),
        ("depth=0", "1 to 65536"),
        ("depth=65537", "1 to 65536"),
        ("version=2.0", "1.4 or 2.1"),
        ("ana=lost", "persistent-loss or change"),
        ("ana=change,kv=true", "kv=true"),
        ("css=256", "0 to 255"),
        ("sgl=1", "true, dwords or false"),
        ("prps=1", "2 or more"),
        ("mpsmin=2K", "4K to 128M"),
        ("hmb=100K", "a multiple of 64K"),
        ("cmb=48M", "a power of two from 64K"),
        ("cmb=32K", "a power of two from 64K"),
        ("cmb=512M", "to 256M"),
        ("cmb=-1", "is not a size"),
        ("pmr=3M", "a power of two from 64K"),
        ("pmr=512M", "to 256M"),
        ("boot-partitions=100K", "a multiple of 128K"),
        ("boot-partitions=32M", "up to 16M"),
        ("mdts=64K,mpsmin=64K", "two memory pages"),
        ("vectors=4096", "0 to 2048"),
        ("msi=3", "power of two up to 32"),
        ("msi=64", "power of two up to 32"),
        ("intx=1", "true or false"),
        ("dbbuf=on", "true or false"),
        ("serial=", "1 to 20"),
        ("serial=123456789012345678901", "1 to 20"),
        ("null=true,file=/x", "file="),
        ("zoned=1", "true or false"),
        ("zoned=true+false", "namespaces=1"),
        ("zone-size=4M", "needs zoned=true"),
        ("zone-size=5000,zoned=true", "multiple of 4096"),
        ("zone-size=0,zoned=true", "4096 bytes at least"),
        ("zoned=true,file=/x", "states of zones"),
        ("zone-capacity=8M,zoned=true,zone-size=4M", "zone-size=4M"),
        ("size=6M,zoned=true,zone-size=4M", "zone-size=4M"),
        ("zone-size=4K,zoned=true,size=8G", "zones at most"),
        ("max-open=3,zoned=true,max-active=2", "each open zone is active"),
        ("max-active=0,zoned=true", "1 or more"),
        ("zasl=12K,zoned=true", "power of two"),
        ("zrwa=32M,zoned=true", "up to 16M"),
        ("fdp=1", "true or false"),
        ("fdp-handles=0,fdp=true", "1 to 128"),
        ("fdp-groups=257,fdp=true", "1 to 256"),
        ("fdp-unit=5000,fdp=true", "multiple of 4096"),
        ("fdp-unit=8K", "needs fdp=true"),
        ("fdp=true,zoned=true", "zoned=true"),
        ("kv=1", "true or false"),
        ("kv=true+false", "namespaces=1"),
        ("kv-key=8", "needs kv=true"),
        ("kv-key=17,kv=true", "1 to 16"),
        ("kv-value=0,kv=true", "1 byte up to 1G"),
        ("kv-keys=0,kv=true", "1 or more"),
        ("kv=true,file=/x", "not keys"),
        ("kv=true,null=true", "null=true"),
        ("kv=true,populate=true", "populate=true"),
        ("kv=true,zoned=true", "have zones, too"),
        ("read-only-zones=65,zoned=true,size=1G", "more than"),
        ("vfs=9", "0 to 8"),
        ("vf=0", "1 to 8"),
        ("vf=1,size=1M", "only serial="),
        ("vfs=1,vf=1", "only serial="),
        ("vectors=2048,vfs=1", "adds 8 vectors"),
    ] {
        let error = text.parse::<Options>().unwrap_err().to_string();
        assert!(error.contains(part) && error.lines().count() == 1, "{text}: {error}");
        let key = text.split(['=', ',']).next().unwrap();
        assert!(error.contains(key), "{text}: {error}");
    }
}

#[test]
fn an_unknown_option_lists_all_options() {
    let error = "colour=red".parse::<Options>().unwrap_err().to_string();
    assert!(error.contains("\"colour\""), "{error}");
    // Two commas are one of a value.
    let pairs = TEXTS.into_iter().filter(|text| !text.contains(",,")).flat_map(|text| text.split(','));
    for (key, _) in pairs.filter_map(|pair| pair.split_once('=')) {
        assert!(
            error.lines().any(|line| line.trim_start().starts_with(&format!("{key}="))),
            "{key}: {error}"
        );
    }
}
