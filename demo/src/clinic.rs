//! The application that is protected: its tables, and three made-up clinics to fill them, the same every time.

use custody_harness::Result;
use std::io::Write;

use crate::rng::Rng;
use crate::session::{Session, described};

pub const SCHEMA: &str = "CREATE SCHEMA clinic;
CREATE TABLE clinic.codes (code text PRIMARY KEY, system text NOT NULL, description text NOT NULL);
CREATE TABLE clinic.patients (
  organization_id uuid, id uuid DEFAULT gen_random_uuid(), first_name text, last_name text NOT NULL, birth_date date NOT NULL,
  death_date date, gender text, national_id text, address text, city text,
  PRIMARY KEY (organization_id, id));
CREATE TABLE clinic.encounters (
  organization_id uuid, id uuid DEFAULT gen_random_uuid(), patient_id uuid NOT NULL, class text, code text NOT NULL REFERENCES clinic.codes,
  started_at timestamptz NOT NULL, ended_at timestamptz,
  PRIMARY KEY (organization_id, id),
  FOREIGN KEY (organization_id, patient_id) REFERENCES clinic.patients ON DELETE CASCADE);
CREATE TABLE clinic.conditions (
  organization_id uuid, id uuid DEFAULT gen_random_uuid(), encounter_id uuid NOT NULL, code text NOT NULL REFERENCES clinic.codes,
  onset date NOT NULL, resolved date,
  PRIMARY KEY (organization_id, id),
  FOREIGN KEY (organization_id, encounter_id) REFERENCES clinic.encounters ON DELETE CASCADE);
CREATE TABLE clinic.medications (
  organization_id uuid, id uuid DEFAULT gen_random_uuid(), encounter_id uuid NOT NULL, code text NOT NULL REFERENCES clinic.codes,
  started_at timestamptz NOT NULL, stopped_at timestamptz, dispenses integer, base_cost numeric(12, 2),
  PRIMARY KEY (organization_id, id),
  FOREIGN KEY (organization_id, encounter_id) REFERENCES clinic.encounters ON DELETE CASCADE);
CREATE TABLE clinic.observations (
  organization_id uuid, id uuid DEFAULT gen_random_uuid(), encounter_id uuid NOT NULL, code text NOT NULL REFERENCES clinic.codes,
  observed_at timestamptz NOT NULL, category text, value text, units text,
  PRIMARY KEY (organization_id, id),
  FOREIGN KEY (organization_id, encounter_id) REFERENCES clinic.encounters ON DELETE CASCADE);
CREATE INDEX ON clinic.encounters (organization_id, patient_id);
CREATE INDEX ON clinic.conditions (organization_id, encounter_id);
CREATE INDEX ON clinic.medications (organization_id, encounter_id);
CREATE INDEX ON clinic.observations (organization_id, encounter_id);";

/// The tables in an order that foreign keys allow, with the columns that are loaded. All but the first are by tenant.
pub const TABLES: [(&str, &str); 6] = [
    ("codes", "code, system, description"),
    (
        "patients",
        "organization_id, id, first_name, last_name, birth_date, death_date, gender, national_id, address, city",
    ),
    ("encounters", "organization_id, id, patient_id, class, code, started_at, ended_at"),
    ("conditions", "organization_id, id, encounter_id, code, onset, resolved"),
    ("medications", "organization_id, id, encounter_id, code, started_at, stopped_at, dispenses, base_cost"),
    ("observations", "organization_id, id, encounter_id, code, observed_at, category, value, units"),
];
pub const CODES: usize = 0;
pub const PATIENTS: usize = 1;
pub const ENCOUNTERS: usize = 2;
pub const CONDITIONS: usize = 3;
pub const MEDICATIONS: usize = 4;
pub const OBSERVATIONS: usize = 5;

/// The tables that have a tenant.
pub fn by_tenant() -> impl Iterator<Item = &'static str> {
    TABLES[PATIENTS..].iter().map(|(name, _)| *name)
}

/// The values of a row, as text; an empty one is NULL.
pub type Row = Vec<String>;

#[derive(Clone)]
pub struct Tenant {
    pub id: String,
    pub name: String,
}

/// Everything there is to load.
#[derive(Default)]
pub struct Data {
    pub source: String,
    /// What was left out, and why.
    pub remarks: Vec<String>,
    pub tenants: Vec<Tenant>,
    pub rows: [Vec<Row>; TABLES.len()],
}

impl Data {
    pub fn put<const N: usize>(&mut self, table: usize, row: [&str; N]) {
        self.rows[table].push(row.map(ToOwned::to_owned).to_vec());
    }

    /// How many rows of a table a tenant has.
    pub fn count(&self, table: usize, tenant: &str) -> i64 {
        self.rows[table].iter().filter(|row| row[0] == tenant).count() as i64
    }

    /// The codes that the demo's own sessions use, if the data does not have them.
    pub fn add_own_codes(&mut self) -> usize {
        let missing: Vec<_> =
            OWN_CODES.iter().filter(|(code, ..)| !self.rows[CODES].iter().any(|row| row[0] == *code)).collect();
        let added = missing.len();
        for (code, system, description) in missing {
            self.put(CODES, [code, system, description]);
        }
        added
    }

    /// COPY, as whoever may.
    pub fn copy(&self, session: &mut Session) -> Result<()> {
        for ((table, columns), rows) in TABLES.iter().zip(&self.rows) {
            let statement = format!("COPY clinic.{table} ({columns}) FROM STDIN (FORMAT csv)");
            let mut text = csv::Writer::from_writer(Vec::new());
            for row in rows {
                text.write_record(row)?;
            }
            let text = text.into_inner().map_err(|e| e.to_string())?;
            let failed = |e: postgres::Error| format!("{table}: {}", described(&e));
            let mut copy = session.client.copy_in(&statement).map_err(failed)?;
            copy.write_all(&text)?;
            copy.finish().map_err(failed)?;
        }
        Ok(())
    }
}

pub const CHECK_UP: &str = "185349003";
pub const HYPERTENSION: &str = "38341003";
pub const LISINOPRIL: &str = "314076";
pub const HEART_RATE: &str = "8867-4";
const OWN_CODES: [(&str, &str, &str); 4] = [
    (CHECK_UP, SNOMED, "Encounter for 'check-up'"),
    (HYPERTENSION, SNOMED, "Hypertensive disorder"),
    (LISINOPRIL, RXNORM, "lisinopril 10 MG Oral Tablet"),
    (HEART_RATE, LOINC, "Heart rate"),
];
pub const SNOMED: &str = "SNOMED CT";
pub const RXNORM: &str = "RxNorm";
pub const LOINC: &str = "LOINC";

const CLINICS: [(&str, usize); 3] =
    [("Northgate Clinic", 85), ("Riverside Family Practice", 70), ("Hill Street Medical Centre", 45)];
const WOMEN: [&str; 14] = [
    "Ada", "Beatriz", "Chloe", "Dilnoza", "Elif", "Fatima", "Grace", "Hanna", "Ingrid", "Joy", "Keiko", "Leila", "Zoë",
    "Noor",
];
const MEN: [&str; 14] = [
    "Adam", "Bruno", "Chidi", "Daniel", "Emeka", "Farid", "George", "Hiro", "Ivan", "José", "Karl", "Liam", "Mateo",
    "Nils",
];
const FAMILIES: [&str; 20] = [
    "Abara",
    "Berg",
    "Castillo",
    "Dubois",
    "Ekström",
    "Fischer",
    "García",
    "Haddad",
    "Ito",
    "Jansen",
    "Kowalski",
    "Lindqvist",
    "Moreau",
    "Nguyen",
    "O'Brien",
    "Petrov",
    "Quispe",
    "Rossi",
    "Smith",
    "Tanaka",
];
const STREETS: [&str; 6] =
    ["Mill Lane", "Station Road", "Church Street", "Orchard Way", "Harbour Street", "Park Avenue"];
const CITIES: [&str; 5] = ["Ashford", "Bexhill", "Crowley", "Dunmore", "Elmsworth"];
const VISITS: [(&str, &str, &str); 4] = [
    ("185345009", "Encounter for symptom", "ambulatory"),
    (CHECK_UP, "Encounter for 'check-up'", "wellness"),
    ("390906007", "Follow-up encounter", "outpatient"),
    ("50849002", "Emergency room admission", "emergency"),
];

/// What people have: how often, from what age, for how many days (0: for good), and what is prescribed.
struct Illness {
    code: &'static str,
    name: &'static str,
    percent: i64,
    from_age: i64,
    days: i64,
    drug: &'static str,
    drug_name: &'static str,
    cost: &'static str,
}

const ILLNESSES: [Illness; 7] = [
    Illness {
        code: HYPERTENSION,
        name: "Hypertensive disorder",
        percent: 14,
        from_age: 40,
        days: 0,
        drug: LISINOPRIL,
        drug_name: "lisinopril 10 MG Oral Tablet",
        cost: "12.40",
    },
    Illness {
        code: "44054006",
        name: "Diabetes mellitus type 2",
        percent: 8,
        from_age: 35,
        days: 0,
        drug: "860975",
        drug_name: "metformin hydrochloride 500 MG Extended Release Oral Tablet",
        cost: "18.95",
    },
    Illness {
        code: "55822004",
        name: "Hyperlipidemia",
        percent: 9,
        from_age: 40,
        days: 0,
        drug: "312961",
        drug_name: "simvastatin 20 MG Oral Tablet",
        cost: "9.70",
    },
    Illness {
        code: "195967001",
        name: "Asthma",
        percent: 5,
        from_age: 4,
        days: 0,
        drug: "745679",
        drug_name: "albuterol 0.09 MG/ACTUAT Metered Dose Inhaler",
        cost: "41.20",
    },
    Illness {
        code: "195662009",
        name: "Acute viral pharyngitis",
        percent: 16,
        from_age: 1,
        days: 12,
        drug: "313782",
        drug_name: "acetaminophen 325 MG Oral Tablet",
        cost: "4.15",
    },
    Illness {
        code: "10509002",
        name: "Acute bronchitis",
        percent: 12,
        from_age: 1,
        days: 16,
        drug: "313782",
        drug_name: "acetaminophen 325 MG Oral Tablet",
        cost: "4.15",
    },
    Illness {
        code: "75498004",
        name: "Acute bacterial sinusitis",
        percent: 6,
        from_age: 3,
        days: 20,
        drug: "308182",
        drug_name: "amoxicillin 250 MG Oral Capsule",
        cost: "11.05",
    },
];

const VITALS: [(&str, &str, &str); 6] = [
    ("8302-2", "Body height", "cm"),
    ("29463-7", "Body weight", "kg"),
    ("8480-6", "Systolic blood pressure", "mm[Hg]"),
    ("8462-4", "Diastolic blood pressure", "mm[Hg]"),
    (HEART_RATE, "Heart rate", "/min"),
    ("4548-4", "Hemoglobin A1c/Hemoglobin.total in Blood", "%"),
];

/// Days from 1970-01-01 to the first day that encounters may be on, 2016-01-01, and the last, 2025-09-30.
const FIRST_DAY: i64 = 16_801;
const LAST_DAY: i64 = 20_361;

/// Three clinics, two hundred patients, a thousand encounters.
pub fn generate() -> Data {
    let mut data = Data { source: "made by the demo from a fixed seed".into(), ..Data::default() };
    for (code, name, _) in VISITS {
        data.put(CODES, [code, SNOMED, name]);
    }
    for i in &ILLNESSES {
        data.put(CODES, [i.code, SNOMED, i.name]);
        if !data.rows[CODES].iter().any(|row| row[0] == i.drug) {
            data.put(CODES, [i.drug, RXNORM, i.drug_name]);
        }
    }
    for (code, name, _) in VITALS {
        data.put(CODES, [code, LOINC, name]);
    }
    let mut rng = Rng::new(20_251_122);
    for (name, patients) in CLINICS {
        let tenant = Tenant { id: rng.uuid().to_string(), name: name.into() };
        for _ in 0..patients {
            patient(&mut data, &mut rng, &tenant.id);
        }
        data.tenants.push(tenant);
    }
    data
}

fn patient(data: &mut Data, rng: &mut Rng, tenant: &str) {
    let id = rng.uuid().to_string();
    let woman = rng.chance(52);
    let first = *rng.pick(if woman { &WOMEN } else { &MEN });
    let born = FIRST_DAY - rng.between(365, 85 * 365);
    let national = format!("{:03}-{:02}-{:04}", rng.between(900, 999), rng.between(10, 99), rng.between(0, 9999));
    let address = format!("{} {}", rng.between(1, 240), rng.pick(&STREETS));
    let (family, city, gender) = (*rng.pick(&FAMILIES), *rng.pick(&CITIES), if woman { "F" } else { "M" });
    data.put(PATIENTS, [tenant, &id, first, family, &date(born), "", gender, &national, &address, city]);
    let height = if woman { rng.between(152, 178) } else { rng.between(164, 192) };
    let mut chronic = Vec::new();
    for _ in 0..rng.between(2, 8) {
        encounter(data, rng, tenant, &Patient { id: &id, born, height }, &mut chronic);
    }
}

struct Patient<'a> {
    id: &'a str,
    born: i64,
    height: i64,
}

fn encounter(data: &mut Data, rng: &mut Rng, tenant: &str, patient: &Patient<'_>, chronic: &mut Vec<&'static str>) {
    let id = rng.uuid().to_string();
    let day = rng.between(FIRST_DAY, LAST_DAY);
    let age = (day - patient.born) / 365;
    let (code, _, class) = *rng.pick(&VISITS);
    let minute = rng.between(8 * 60, 17 * 60);
    let started = at(day, minute);
    data.put(ENCOUNTERS, [tenant, &id, patient.id, class, code, &started, &at(day, minute + rng.between(15, 50))]);
    for illness in &ILLNESSES {
        if age < illness.from_age || chronic.contains(&illness.code) || !rng.chance(illness.percent) {
            continue;
        }
        let (resolved, stopped) = match illness.days {
            0 => {
                chronic.push(illness.code);
                (String::new(), String::new())
            }
            days => (date(day + days), at(day + days, minute)),
        };
        data.put(CONDITIONS, [tenant, &rng.uuid().to_string(), &id, illness.code, &date(day), &resolved]);
        let dispenses = if illness.days == 0 { rng.between(2, 12) } else { 1 }.to_string();
        data.put(
            MEDICATIONS,
            [tenant, &rng.uuid().to_string(), &id, illness.drug, &started, &stopped, &dispenses, illness.cost],
        );
    }
    let ill = |code: &str| i64::from(chronic.contains(&code));
    for (code, _, units) in VITALS {
        let value = match code {
            "8302-2" => growth(patient.height, age).to_string(),
            "29463-7" => {
                let height = growth(patient.height, age);
                format!("{}.{}", height * height * rng.between(20, 29) / 10_000, rng.between(0, 9))
            }
            "8480-6" => (rng.between(106, 132) + 18 * ill(HYPERTENSION)).to_string(),
            "8462-4" => (rng.between(66, 84) + 10 * ill(HYPERTENSION)).to_string(),
            HEART_RATE => rng.between(58, 96).to_string(),
            _ if ill("44054006") == 1 => format!("{}.{}", rng.between(6, 8), rng.between(0, 9)),
            _ => continue,
        };
        let category = if code == "4548-4" { "laboratory" } else { "vital-signs" };
        data.put(OBSERVATIONS, [tenant, &rng.uuid().to_string(), &id, code, &started, category, &value, units]);
    }
}

/// A height in centimetres, for someone who will be so tall at eighteen.
fn growth(height: i64, age: i64) -> i64 {
    height.min(74 + (height - 74) * age.max(0) / 18)
}

fn at(day: i64, minute: i64) -> String {
    format!("{} {:02}:{:02}:00+00", date(day), minute / 60, minute % 60)
}

/// The calendar's name of a day, counted from 1970-01-01 (the proleptic Gregorian calendar, by eras of 400 years from March 1st).
fn date(days: i64) -> String {
    let days = days + 719_468;
    let (era, of_era) = (days.div_euclid(146_097), days.rem_euclid(146_097));
    let year = (of_era - of_era / 1_460 + of_era / 36_524 - of_era / 146_096) / 365;
    let of_year = of_era - (365 * year + year / 4 - year / 100);
    let month = (5 * of_year + 2) / 153;
    let day = of_year - (153 * month + 2) / 5 + 1;
    let (month, later) = if month < 10 { (month + 3, 0) } else { (month - 9, 1) };
    format!("{:04}-{month:02}-{day:02}", year + 400 * era + later)
}

#[cfg(test)]
mod tests {
    use super::date;

    #[test]
    fn days_have_the_calendars_names() {
        assert_eq!(date(0), "1970-01-01");
        assert_eq!(date(super::FIRST_DAY), "2016-01-01");
        assert_eq!(date(super::LAST_DAY), "2025-09-30");
        assert_eq!(date(11_016), "2000-02-29");
        assert_eq!(date(-1), "1969-12-31");
    }
}
