//! New versions of services.
//!
//! A version is deployed when it is first seen and another one was seen before: the first version that a service ever
//! shows is no deployment, and one that runs beside another (a canary, a rolling update) is one deployment however
//! long that takes. A version that comes back after a quarter of an hour in which only others were seen is rolled back
//! to: that counts as well.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use crate::model::{ServiceVersion, UnixNanos};

/// Versions of one service that are remembered.
const MAX_VERSIONS: usize = 16;
/// Services whose versions are remembered.
const MAX_SERVICES: usize = 10_000;
/// Nanoseconds after which a version that comes back has been away.
const AWAY: u64 = 15 * 60 * UnixNanos::SECOND;

/// The versions of all services of an environment.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub(super) struct Deployments(BTreeMap<String, Vec<Version>>);

/// One version of one service.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Version {
    pub(super) name: String,
    /// When it was first seen, this time.
    pub(super) first: UnixNanos,
    last: UnixNanos,
}

impl Deployments {
    /// Takes note of versions that were seen.
    pub(super) fn note(&mut self, seen: &[ServiceVersion]) {
        for one in seen {
            if !self.0.contains_key(&one.service) {
                if self.0.len() >= MAX_SERVICES {
                    continue;
                }
                self.0.insert(one.service.clone(), Vec::new());
            }
            let Some(versions) = self.0.get_mut(&one.service) else { continue };
            let others = versions.iter().filter(|v| v.name != one.version).map(|v| v.last).max();
            if let Some(known) = versions.iter_mut().find(|v| v.name == one.version) {
                let was_away = one.first > known.last.plus(AWAY) && others.is_some_and(|last| last > known.last.plus(AWAY));
                known.first = if was_away { one.first } else { known.first.min(one.first) };
                known.last = known.last.max(one.last);
                continue;
            }
            if versions.len() >= MAX_VERSIONS
                && let Some(oldest) = versions.iter().enumerate().min_by_key(|(_, v)| v.last).map(|(i, _)| i)
            {
                versions.remove(oldest);
            }
            versions.push(Version { name: one.version.clone(), first: one.first, last: one.last });
        }
    }

    /// The version of `service` that was deployed last before `until`.
    pub(super) fn latest(&self, service: &str, until: UnixNanos) -> Option<&Version> {
        let versions = self.0.get(service)?;
        let latest = versions.iter().filter(|v| v.first < until).max_by_key(|v| (v.first, &v.name))?;
        // The first version that a service ever showed was not deployed beside or after another.
        versions.iter().any(|v| v.name != latest.name && v.first <= latest.first).then_some(latest)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const MINUTE: u64 = 60;

    fn see(deployments: &mut Deployments, version: &str, minute: u64) {
        let at = UnixNanos::from_secs(1_000_000 + minute * MINUTE);
        let seen = ServiceVersion { service: "checkout".into(), version: version.into(), first: at, last: at };
        deployments.note(&[seen]);
    }

    /// Version and minute of the last deployment.
    fn latest(deployments: &Deployments, minute: u64) -> Option<(String, u64)> {
        let latest = deployments.latest("checkout", UnixNanos::from_secs(1_000_000 + minute * MINUTE))?;
        Some((latest.name.clone(), (latest.first.secs() - 1_000_000) / MINUTE))
    }

    #[test]
    fn a_version_beside_another_is_one_deployment_and_the_first_is_none() {
        let mut deployments = Deployments::default();
        for minute in 0..100 {
            see(&mut deployments, "1.4.1", minute);
        }
        assert_eq!(latest(&deployments, 1000), None);
        for minute in 100..200 {
            see(&mut deployments, if minute % 2 == 0 { "1.4.2" } else { "1.4.1" }, minute);
        }
        for minute in 200..300 {
            see(&mut deployments, "1.4.2", minute);
        }
        assert_eq!(latest(&deployments, 1000), Some(("1.4.2".into(), 100)));
        see(&mut deployments, "1.4.1", 300);
        assert_eq!(latest(&deployments, 1000), Some(("1.4.1".into(), 300)), "rolled back");
    }

    #[test]
    fn a_quiet_night_is_no_deployment() {
        let mut deployments = Deployments::default();
        see(&mut deployments, "1", 0);
        see(&mut deployments, "2", 100);
        see(&mut deployments, "2", 700);
        assert_eq!(latest(&deployments, 1000), Some(("2".into(), 100)));
    }

    #[test]
    fn versions_are_bounded() {
        let mut deployments = Deployments::default();
        for i in 0..1000 {
            see(&mut deployments, &i.to_string(), i);
        }
        assert_eq!(deployments.0["checkout"].len(), MAX_VERSIONS);
        assert_eq!(latest(&deployments, 2000), Some(("999".into(), 999)));
    }
}
