//! How Identify Controller and Identify Namespace are shown: by the mnemonics of the specification, which is how people know
//! their fields.

use super::super::fields::{Field, Structure, Value};
use super::super::macros::shown;
use super::data::identify_data;
use super::{Cns, IdentifyController, IdentifyNamespace, IdentifyNvmController, LbaFormat, PowerState};

shown! {
    IdentifyController, "Identify Controller" {
        (vid) vid => hex;
        (ssvid) ssvid => hex;
        (sn) sn => text;
        (mn) mn => text;
        (fr) fr => text;
        (rab) rab => number;
        (ieee) ieee => hex;
        (cmic) cmic => hex;
        (mdts) mdts => number;
        (cntlid) cntlid => number;
        (ver) ver => hex;
        (rtd3r) rtd3r => unit("µs");
        (rtd3e) rtd3e => unit("µs");
        (oaes) oaes => hex;
        (ctratt) ctratt => hex;
        (rrls) rrls => hex;
        (bpcap) bpcap => hex;
        (nssl) nssl => unit("µs");
        (plsi) plsi => hex;
        (cntrltype) cntrltype => number;
        (fguid) fguid => bytes;
        (crdt) crdt => numbers;
        (crcap) crcap => hex;
        (nvmsr) nvmsr => hex;
        (vwci) vwci => hex;
        (mec) mec => hex;
        (oacs) oacs => hex;
        (acl) acl => zeros_based;
        (aerl) aerl => zeros_based;
        (frmw) frmw => hex;
        (lpa) lpa => hex;
        (elpe) elpe => zeros_based;
        (npss) npss => zeros_based;
        (avscc) avscc => hex;
        (apsta) apsta => hex;
        (wctemp) wctemp => unit("K");
        (cctemp) cctemp => unit("K");
        (mtfa) mtfa => number;
        (hmpre) hmpre => number;
        (hmmin) hmmin => number;
        (tnvmcap) tnvmcap => unit("bytes");
        (unvmcap) unvmcap => unit("bytes");
        (rpmbs) rpmbs => hex;
        (edstt) edstt => unit("min");
        (dsto) dsto => hex;
        (fwug) fwug => number;
        (kas) kas => number;
        (hctma) hctma => hex;
        (mntmt) mntmt => unit("K");
        (mxtmt) mxtmt => unit("K");
        (sanicap) sanicap => hex;
        (hmminds) hmminds => number;
        (hmmaxd) hmmaxd => number;
        (nsetidmax) nsetidmax => number;
        (endgidmax) endgidmax => number;
        (anatt) anatt => unit("s");
        (anacap) anacap => hex;
        (anagrpmax) anagrpmax => number;
        (nanagrpid) nanagrpid => number;
        (pels) pels => number;
        (domain_id) domain_id => number;
        (kpioc) kpioc => hex;
        (mptfawr) mptfawr => unit("× 100 ms");
        (megcap) megcap => unit("bytes");
        (tmpthha) tmpthha => hex;
        (cqt) cqt => unit("ms");
        (sqes) sqes => hex;
        (cqes) cqes => hex;
        (maxcmd) maxcmd => number;
        (nn) nn => number;
        (oncs) oncs => hex;
        (fuses) fuses => hex;
        (fna) fna => hex;
        (vwc) vwc => hex;
        (awun) awun => zeros_based;
        (awupf) awupf => zeros_based;
        (icsvscc) icsvscc => hex;
        (nwpc) nwpc => hex;
        (acwu) acwu => zeros_based;
        (cdfs) cdfs => hex;
        (sgls) sgls => hex;
        (mnan) mnan => number;
        (maxdna) maxdna => number;
        (maxcna) maxcna => number;
        (oaqd) oaqd => number;
        (rhiri) rhiri => unit("days");
        (hirt) hirt => unit("min");
        (cmmrtd) cmmrtd => number;
        (nmmrtd) nmmrtd => number;
        (minmrtg) minmrtg => number;
        (maxmrtg) maxmrtg => number;
        (trattr) trattr => hex;
        (mcudmq) mcudmq => number;
        (mnsudmq) mnsudmq => number;
        (mcmr) mcmr => number;
        (nmcmr) nmcmr => number;
        (mcdqpc) mcdqpc => number;
        (subnqn) subnqn => utf8;
        (ioccsz) ioccsz => number;
        (iorcsz) iorcsz => number;
        (icdoff) icdoff => number;
        (fcatt) fcatt => hex;
        (msdbd) msdbd => number;
        (ofcs) ofcs => hex;
        (dctype) dctype => number;
        (psd) psd = shown_power_states;
    }
}

impl IdentifyController {
    fn shown_power_states(&self) -> Value {
        Value::List(self.power_states().iter().map(|state| Value::Fields(state.fields())).collect())
    }
}

shown! {
    PowerState, "Power State Descriptor" {
        (max_power()) max_power => unit("µW");
        (is_non_operational()) non_operational => flag;
        (enlat) entry_latency => unit("µs");
        (exlat) exit_latency => unit("µs");
        (rrt) relative_read_throughput => number;
        (rrl) relative_read_latency => number;
        (rwt) relative_write_throughput => number;
        (rwl) relative_write_latency => number;
        (idlp) idle_power => number;
        (ips) idle_power_scale => hex;
        (actp) active_power => number;
        (apws) active_power_workload_and_scale => hex;
        (epfrt) emergency_power_fail_recovery_time => number;
        (fqvt) forced_quiescence_vault_time => number;
        (epfvt) emergency_power_fail_vault_time => number;
        (epfrts_fqvts) recovery_and_quiescence_scales => hex;
        (epfvts) emergency_power_fail_vault_scale => hex;
    }
}

shown! {
    IdentifyNvmController, "I/O Command Set specific Identify Controller (NVM)" {
        (vsl) verify_size_limit => number;
        (wzsl) write_zeroes_size_limit => number;
        (wusl) write_uncorrectable_size_limit => number;
        (dmrl) dataset_management_ranges_limit => number;
        (dmrsl) dataset_management_range_size_limit => unit("blocks");
        (dmsl) dataset_management_size_limit => unit("blocks");
    }
}

shown! {
    IdentifyNamespace, "Identify Namespace" {
        (nsze) nsze => number;
        (ncap) ncap => number;
        (nuse) nuse => number;
        (nsfeat) nsfeat => hex;
        (nlbaf) nlbaf => zeros_based;
        (flbas) flbas => hex;
        (mc) mc => hex;
        (dpc) dpc => hex;
        (dps) dps => hex;
        (nmic) nmic => hex;
        (rescap) rescap => hex;
        (fpi) fpi => hex;
        (dlfeat) dlfeat => hex;
        (nawun) nawun => zeros_based;
        (nawupf) nawupf => zeros_based;
        (nacwu) nacwu => zeros_based;
        (nabsn) nabsn => number;
        (nabo) nabo => number;
        (nabspf) nabspf => number;
        (noiob) noiob => number;
        (nvmcap) nvmcap => unit("bytes");
        (npwg) npwg => zeros_based;
        (npwa) npwa => zeros_based;
        (npdg) npdg => zeros_based;
        (npda) npda => zeros_based;
        (nows) nows => zeros_based;
        (mssrl) mssrl => number;
        (mcl) mcl => number;
        (msrc) msrc => zeros_based;
        (kpios) kpios => hex;
        (nulbaf) nulbaf => number;
        (kpiodaag) kpiodaag => number;
        (anagrpid) anagrpid => number;
        (nsattr) nsattr => hex;
        (nvmsetid) nvmsetid => number;
        (endgid) endgid => number;
        (nguid) nguid => bytes;
        (eui64) eui64 => bytes;
        (lbaf) lbaf = shown_formats;
    }
}

impl IdentifyNamespace {
    fn shown_formats(&self) -> Value {
        let formats = self.lbaf[..self.format_count()].iter().enumerate();
        let shown = formats.map(|(index, format)| {
            let mut fields = format.fields();
            fields.push(Field::new("in_use", Value::Flag(index == self.format_index())));
            Value::Fields(fields)
        });
        Value::List(shown.collect())
    }
}

shown! {
    LbaFormat, "LBA Format" {
        (ms()) metadata_size => unit("bytes");
        (block_size().unwrap_or(0)) data_size => unit("bytes");
        (rp()) relative_performance => names(&[(0, "best"), (1, "better"), (2, "good"), (3, "degraded")]);
    }
}

identify_data! {
    IdentifyController: CONTROLLER;
    IdentifyNamespace: NAMESPACE [namespace];
    IdentifyNvmController: COMMAND_SET_CONTROLLER;
}
