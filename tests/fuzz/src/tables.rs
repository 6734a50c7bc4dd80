//! Every log page, Identify structure and feature that the library knows, by its table: length, fields, and their text.
//!
//! The first two bytes choose the table and the row; the rest is the controller's answer.

use upcie_nvme::spec::{FeatureInfo, Field, FromBytes, IdentifyController, IdentifyInfo, LogPageInfo, Value};

/// The most values that one byte of an answer may become.
const VALUES: usize = 16;

pub fn target(data: &[u8]) {
    let [table, row, answer @ ..] = data else { return };
    let row = usize::from(*row);
    match table % 3 {
        0 => log_page(&LogPageInfo::ALL[row % LogPageInfo::ALL.len()], answer),
        1 => {
            let mut page = [0; 4096];
            let len = answer.len().min(page.len());
            page[..len].copy_from_slice(&answer[..len]);
            let info = &IdentifyInfo::ALL[row % IdentifyInfo::ALL.len()];
            check(info.title, &(info.fields)(&page), page.len());
        }
        _ => feature(&FeatureInfo::ALL[row % FeatureInfo::ALL.len()], answer),
    }
}

/// Reads the page as a program does: as many bytes as it asks for, until it asks for no more.
fn log_page(info: &LogPageInfo, answer: &[u8]) {
    let identify =
        IdentifyController::read_from_bytes(&[answer, &[0; 4096]].concat()[..4096]).expect("one page");
    let mut read = 0;
    loop {
        let len = (info.len)(&answer[..read], &identify);
        if len <= read as u64 || len > answer.len() as u64 {
            break;
        }
        read = len as usize;
    }
    for part in [&answer[..read], answer] {
        if let Some(fields) = (info.fields)(part) {
            check(info.title, &fields, part.len());
        }
    }
}

fn feature(info: &FeatureInfo, answer: &[u8]) {
    let Some((dword, bytes)) = answer.split_first_chunk::<4>() else { return };
    let number = u32::from_le_bytes(*dword);
    if let Some(fields) = (info.fields)(number, bytes) {
        check(info.title, &fields, answer.len());
    }
    let (dword, data) = (info.places)();
    for (places, mut bytes) in [(dword, vec![0; 4]), (data, bytes.to_vec())] {
        for place in places {
            let before = bytes.clone();
            if !place.put(&mut bytes, number.into()) {
                assert_eq!(bytes, before, "{}: a number that does not fit changes nothing", place.name);
            }
        }
    }
}

/// Checks that fields can be shown, in a size that the answer's allows.
fn check(title: &str, fields: &[Field], len: usize) {
    let mut values = 0;
    fields.iter().for_each(|field| visit(&field.value, &mut values));
    assert!(values <= VALUES * (len + 64), "{title}: {values} values of {len} bytes");
    for field in fields {
        let text = field.to_string();
        assert!(!text.contains(|c: char| c.is_control() && c != '\n'), "{title}: {text:?}");
    }
}

fn visit(value: &Value, values: &mut usize) {
    *values += 1;
    match value {
        Value::Text(text) => assert!(!text.contains(char::is_control), "{text:?}"),
        Value::Fields(fields) => fields.iter().for_each(|field| visit(&field.value, values)),
        Value::List(all) => all.iter().for_each(|value| visit(value, values)),
        _ => {}
    }
}

pub fn seeds() -> Vec<Vec<u8>> {
    let row = |table: u8, row: usize, len: usize| {
        let mut seed = vec![table, row as u8];
        // Small numbers, which are counts of entries that are there.
        seed.extend((0..len).map(|at| if at % 8 == 0 { (at / 8 % 4) as u8 } else { 0 }));
        seed
    };
    let logs = (0..LogPageInfo::ALL.len()).map(|index| row(0, index, 512));
    let identify = (0..IdentifyInfo::ALL.len()).map(|index| row(1, index, 256));
    logs.chain(identify).chain((0..FeatureInfo::ALL.len()).map(|index| row(2, index, 64))).collect()
}
