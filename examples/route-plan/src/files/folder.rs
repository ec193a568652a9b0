//! A folder of instances, each with its routes.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};

use super::best_known::{self, BestKnown};
use super::error::ImportError;
use super::instance::Instance;
use super::solved::Solved;

/// File of the best-known routes in a folder of instances.
const BEST_KNOWN_FILE: &str = "best_known_25.txt";

/// How the file names of the instances begin; larger instances in the same folder are left alone.
const INSTANCE_PREFIX: &str = "0025_";

/// Reads every instance `0025_*.txt` of a folder with its best-known routes, sorted by name.
///
/// # Errors
///
/// An [`ImportError`] if the folder or a file cannot be read or is malformed, if there is no
/// instance, if an instance has no routes or routes have no instance, or if the routes of an
/// instance do not visit its customers: one is unknown, on two routes, or on none.
pub(crate) fn read_folder(folder: &Path) -> Result<Vec<Solved>, ImportError> {
    let files = instance_files(folder)?;
    if files.is_empty() {
        return Err(ImportError {
            file: folder.to_owned(),
            line: None,
            reason: format!("expected instances named {INSTANCE_PREFIX}*.txt, found none"),
        });
    }

    let routes_file = folder.join(BEST_KNOWN_FILE);
    let mut best_known: BTreeMap<String, BestKnown> = best_known::read(&routes_file)?
        .into_iter()
        .map(|routes| (routes.instance.clone(), routes))
        .collect();

    let mut solved = Vec::with_capacity(files.len());
    for file in files {
        let instance = Instance::read(&file)?;
        let Some(routes) = best_known.remove(&instance.name) else {
            return Err(ImportError {
                file: routes_file,
                line: None,
                reason: format!("expected routes for instance {}, found none", instance.name),
            });
        };
        solved.push(Solved::pair(instance, routes, &routes_file)?);
    }

    match best_known.into_values().min_by_key(|routes| routes.line) {
        Some(orphan) => Err(ImportError {
            file: routes_file,
            line: Some(orphan.line),
            reason: format!(
                "routes for instance {:?}: expected its file {:?} in the same folder, found none",
                orphan.instance,
                format!("{}.txt", orphan.instance)
            ),
        }),
        None => Ok(solved),
    }
}

/// The instances of a folder, sorted by name: the order of a folder's listing is arbitrary.
fn instance_files(folder: &Path) -> Result<Vec<PathBuf>, ImportError> {
    let cannot_list = |error| ImportError {
        file: folder.to_owned(),
        line: None,
        reason: format!("cannot list the folder of instances: {error}"),
    };
    let mut files = Vec::new();
    for entry in fs::read_dir(folder).map_err(cannot_list)? {
        let entry = entry.map_err(cannot_list)?;
        let name = entry.file_name();
        if name
            .to_str()
            .is_some_and(|name| name.starts_with(INSTANCE_PREFIX) && name.ends_with(".txt"))
        {
            files.push(entry.path());
        }
    }
    // By name without the ending: with it, `X-1.txt` would come before `X.txt`.
    files.sort_by(|one, other| one.file_stem().cmp(&other.file_stem()));
    Ok(files)
}

#[cfg(test)]
mod tests {
    use std::fs::write;

    use tempfile::TempDir;

    use super::super::fixture::{ROUTES, SMALL};
    use super::*;

    /// A folder of these files.
    fn folder(files: &[(&str, &str)]) -> TempDir {
        let folder = TempDir::new().unwrap();
        for (name, text) in files {
            write(folder.path().join(name), text).unwrap();
        }
        folder
    }

    /// The error of reading a folder, with the folder's own path left out.
    fn folder_refusal(files: &[(&str, &str)]) -> String {
        let folder = folder(files);
        let error = read_folder(folder.path()).unwrap_err().to_string();
        let path = folder.path().display().to_string();
        error.strip_prefix(&path).unwrap().to_owned()
    }

    #[test]
    fn a_folder_is_paired_and_sorted_and_the_rest_left_alone() {
        let routes = format!("0025_S2 1 40 1\n3 3 2 1\n\n0025_S1-b 1 40 1\n3 1 2 3\n\n{ROUTES}");
        let folder = folder(&[
            ("0025_S2.txt", SMALL),
            ("0025_S1.txt", SMALL),
            ("0025_S1-b.txt", SMALL),
            ("0025_S3.bak", "not read"),
            ("0100_S1.txt", "not read"),
            (BEST_KNOWN_FILE, &routes),
        ]);
        let solved = read_folder(folder.path()).unwrap();
        let names: Vec<&str> = solved
            .iter()
            .map(|one| one.instance.name.as_str())
            .collect();
        assert_eq!(names, ["0025_S1", "0025_S1-b", "0025_S2"]);

        let [first, _, second] = &solved[..] else {
            unreachable!()
        };
        assert_eq!(first.routes[1], first.instance.customers[2..]);
        assert_eq!(first.distance, 45.5);
        let order: Vec<u32> = second.routes[0].iter().map(|stop| stop.customer).collect();
        assert_eq!(order, [3, 2, 1]);
    }

    #[test]
    fn a_folder_must_exist_and_hold_instances_and_routes() {
        let parent = TempDir::new().unwrap();
        let error = read_folder(&parent.path().join("absent")).unwrap_err();
        assert_eq!(error.line, None);
        assert_eq!(error.file, parent.path().join("absent"));
        assert!(
            error
                .reason
                .starts_with("cannot list the folder of instances: ")
        );

        assert_eq!(
            folder_refusal(&[(BEST_KNOWN_FILE, ROUTES)]),
            ": expected instances named 0025_*.txt, found none"
        );
        let error = folder_refusal(&[("0025_S1.txt", SMALL)]);
        assert!(
            error.starts_with("/best_known_25.txt: cannot read: "),
            "{error}"
        );
    }

    #[test]
    fn instances_and_routes_must_match() {
        assert_eq!(
            folder_refusal(&[
                ("0025_S1.txt", SMALL),
                ("0025_S2.txt", SMALL),
                (BEST_KNOWN_FILE, ROUTES),
            ]),
            "/best_known_25.txt: expected routes for instance 0025_S2, found none"
        );
        let orphans = format!("{ROUTES}\n0025_S9 0 0 0\n\n0025_S8 0 0 0\n");
        assert_eq!(
            folder_refusal(&[("0025_S1.txt", SMALL), (BEST_KNOWN_FILE, &orphans)]),
            "/best_known_25.txt:5: routes for instance \"0025_S9\": \
             expected its file \"0025_S9.txt\" in the same folder, found none"
        );
    }

    #[test]
    fn routes_visit_the_customers_of_their_instance() {
        let refusal = |routes| folder_refusal(&[("0025_S1.txt", SMALL), (BEST_KNOWN_FILE, routes)]);
        assert_eq!(
            refusal("0025_S1 2 45.5 7\n2 1 2\n2 3 4\n"),
            "/best_known_25.txt:3: expected a customer of instance 0025_S1, found 4"
        );
        assert_eq!(
            refusal("0025_S1 2 45.5 7\n2 1 2\n2 3 0\n"),
            "/best_known_25.txt:3: expected a customer of instance 0025_S1, found 0"
        );
        assert_eq!(
            refusal("0025_S1 2 45.5 7\n2 1 2\n2 3 1\n"),
            "/best_known_25.txt:3: expected each customer of instance 0025_S1 on one route, \
             found 1 on the route of line 2 also"
        );
        assert_eq!(
            refusal("0025_S1 1 45.5 7\n2 1 2\n"),
            "/best_known_25.txt:1: expected each customer of instance 0025_S1 on one route, \
             found 3 on none"
        );
    }

    #[test]
    fn a_customer_twice_on_one_route_is_left_to_the_plan() {
        let folder = folder(&[
            ("0025_S1.txt", SMALL),
            (BEST_KNOWN_FILE, "0025_S1 1 45.5 7\n4 1 2 3 1\n"),
        ]);
        let solved = read_folder(folder.path()).unwrap();
        assert_eq!(solved[0].routes[0].len(), 4);
    }
}
