//! Synthea's CSV files (https://synthea.mitre.org), organisations being the tenants.

use std::collections::{BTreeSet, HashMap};
use std::fs::File;
use std::path::Path;

use csv::{Reader, StringRecord};
use custody_harness::Result;

use crate::clinic::{
    CODES, CONDITIONS, Data, ENCOUNTERS, LOINC, MEDICATIONS, OBSERVATIONS, PATIENTS, RXNORM, Row, SNOMED, Tenant,
};
use crate::rng::Rng;

/// One file, read by the names of its columns.
struct Csv {
    name: String,
    reader: Reader<File>,
    columns: HashMap<String, usize>,
}

struct Record<'a> {
    record: StringRecord,
    csv: &'a Csv,
}

impl Csv {
    fn open(dir: &Path, name: &str, needed: &[&str]) -> Result<Self> {
        let path = dir.join(name);
        let failed = |e: &dyn std::fmt::Display| format!("{}: {e}", path.display());
        let mut reader = Reader::from_path(&path).map_err(|e| failed(&e))?;
        let columns: HashMap<_, _> =
            reader.headers().map_err(|e| failed(&e))?.iter().enumerate().map(|(i, c)| (c.to_owned(), i)).collect();
        match needed.iter().find(|c| !columns.contains_key(**c)) {
            Some(missing) => Err(format!("{} has no column {missing}", path.display()).into()),
            None => Ok(Self { name: name.into(), reader, columns }),
        }
    }

    fn each(mut self, mut act: impl FnMut(&Record<'_>)) -> Result<()> {
        let mut records = Vec::new();
        for record in self.reader.records() {
            records.push(record.map_err(|e| format!("{}: {e}", self.name))?);
        }
        for record in records {
            act(&Record { record, csv: &self });
        }
        Ok(())
    }
}

impl Record<'_> {
    fn get(&self, column: &str) -> &str {
        self.csv.columns.get(column).and_then(|i| self.record.get(*i)).unwrap_or_default()
    }
}

/// Codes by their number; the first wording is kept.
#[derive(Default)]
struct Codes {
    of: HashMap<String, String>,
    rows: Vec<Row>,
    reworded: BTreeSet<String>,
}

impl Codes {
    fn add(&mut self, system: &str, record: &Record<'_>) {
        let (code, description) = (record.get("CODE"), record.get("DESCRIPTION"));
        match self.of.get(code) {
            None => {
                self.of.insert(code.into(), description.into());
                self.rows.push(vec![code.into(), system.into(), description.into()]);
            }
            Some(known) if known != description => {
                self.reworded.insert(code.into());
            }
            Some(_) => {}
        }
    }
}

/// Where an encounter was, and whose it is.
struct Encounter {
    organization: String,
    patient: String,
}

/// Reads the files. What cannot be assigned to a tenant is counted, never guessed.
pub fn load(dir: &Path) -> Result<Data> {
    let mut data = Data { source: format!("Synthea CSV files in {}", dir.display()), ..Data::default() };
    let mut codes = Codes::default();
    let mut ids = Rng::new(1);

    Csv::open(dir, "organizations.csv", &["Id", "NAME"])?
        .each(|r| data.tenants.push(Tenant { id: r.get("Id").to_ascii_lowercase(), name: r.get("NAME").into() }))?;
    let known: BTreeSet<String> = data.tenants.iter().map(|t| t.id.clone()).collect();

    let mut people: HashMap<String, Row> = HashMap::new();
    let columns = ["Id", "FIRST", "LAST", "BIRTHDATE", "DEATHDATE", "GENDER", "SSN", "ADDRESS", "CITY"];
    Csv::open(dir, "patients.csv", &columns)?.each(|r| {
        let row = ["FIRST", "LAST", "BIRTHDATE", "DEATHDATE", "GENDER", "SSN", "ADDRESS", "CITY"]
            .map(|c| r.get(c).to_owned());
        people.insert(r.get("Id").to_ascii_lowercase(), row.to_vec());
    })?;

    let mut encounters: HashMap<String, Encounter> = HashMap::new();
    let (mut no_organization, mut no_patient) = (0, 0);
    Csv::open(
        dir,
        "encounters.csv",
        &["Id", "START", "STOP", "PATIENT", "ORGANIZATION", "ENCOUNTERCLASS", "CODE", "DESCRIPTION"],
    )?
    .each(|r| {
        let [id, organization, patient] = ["Id", "ORGANIZATION", "PATIENT"].map(|c| r.get(c).to_ascii_lowercase());
        if !known.contains(&organization) {
            no_organization += 1;
        } else if !people.contains_key(&patient) {
            no_patient += 1;
        } else {
            codes.add(SNOMED, r);
            data.put(
                ENCOUNTERS,
                [&organization, &id, &patient, r.get("ENCOUNTERCLASS"), r.get("CODE"), r.get("START"), r.get("STOP")],
            );
            encounters.insert(id, Encounter { organization, patient });
        }
    })?;
    let mut remark = |count: usize, what: &str| {
        if count > 0 {
            data.remarks.push(format!("{count} {what}"));
        }
    };
    remark(no_organization, "encounters left out: their organisation is not in organizations.csv");
    remark(no_patient, "encounters left out: their patient is not in patients.csv");

    // A patient who was seen by several organisations is a patient of each.
    let seen: BTreeSet<(&str, &str)> =
        encounters.values().map(|e| (e.organization.as_str(), e.patient.as_str())).collect();
    let patients: BTreeSet<&str> = seen.iter().map(|(_, patient)| *patient).collect();
    remark(people.len() - patients.len(), "patients left out: no organisation has an encounter with them");
    for (organization, patient) in &seen {
        if let Some(row) = people.get(*patient) {
            let key = [(*organization).to_owned(), (*patient).to_owned()];
            data.rows[PATIENTS].push(key.into_iter().chain(row.iter().cloned()).collect());
        }
    }

    let mut details = |file: &str, table: usize, system: &str, date: &str, columns: &[&str]| -> Result<()> {
        let (mut no_encounter, mut another_patient) = (0, 0);
        let needed: Vec<&str> =
            ["PATIENT", "ENCOUNTER", "CODE", "DESCRIPTION", date].iter().chain(columns).copied().collect();
        Csv::open(dir, file, &needed)?.each(|r| match encounters.get(&r.get("ENCOUNTER").to_ascii_lowercase()) {
            None => no_encounter += 1,
            Some(e) if e.patient != r.get("PATIENT").to_ascii_lowercase() => another_patient += 1,
            Some(e) => {
                codes.add(system, r);
                let start = [
                    e.organization.clone(),
                    ids.uuid().to_string(),
                    r.get("ENCOUNTER").to_ascii_lowercase(),
                    r.get("CODE").into(),
                    r.get(date).into(),
                ];
                data.rows[table].push(start.into_iter().chain(columns.iter().map(|c| r.get(c).to_owned())).collect());
            }
        })?;
        for (count, what) in
            [(no_encounter, "they match no encounter"), (another_patient, "their encounter is another patient's")]
        {
            if count > 0 {
                data.remarks.push(format!("{count} records of {file} left out: {what}"));
            }
        }
        Ok(())
    };
    details("conditions.csv", CONDITIONS, SNOMED, "START", &["STOP"])?;
    details("medications.csv", MEDICATIONS, RXNORM, "START", &["STOP", "DISPENSES", "BASE_COST"])?;
    details("observations.csv", OBSERVATIONS, LOINC, "DATE", &["CATEGORY", "VALUE", "UNITS"])?;

    if !codes.reworded.is_empty() {
        data.remarks
            .push(format!("{} codes come with more than one description: the first is kept", codes.reworded.len()));
    }
    data.rows[CODES] = codes.rows;
    let added = data.add_own_codes();
    if added > 0 {
        data.remarks.push(format!("codes added that the demo's own sessions use: {added}"));
    }
    Ok(data)
}
