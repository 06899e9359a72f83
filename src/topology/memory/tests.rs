use proptest::prelude::*;
use tokio::time::Instant;

use super::plan::{Found, Kept, Step, plan};
use super::text::TextError;
use super::*;
use crate::topology::roles::tests::seen;
use crate::topology::{LastSeen, NodeRole, Observation, Roles, resolve_roles};

const OURS: u64 = 7;
const OTHER: u64 = 8;

/// Returns a node of this cluster that is out of recovery.
fn writer(system_identifier: u64, timeline: u32) -> LastSeen {
    let observation = Observation::primary(timeline, 100, Instant::now());
    LastSeen::Observed(Observation { system_identifier: Some(system_identifier), ..observation })
}

/// Returns a standby of this cluster.
fn standby(system_identifier: u64, timeline: u32) -> LastSeen {
    let observation = Observation::standby(timeline, 100, Instant::now());
    LastSeen::Observed(Observation { system_identifier: Some(system_identifier), ..observation })
}

fn see(history: &mut RoleHistory, all_last_seen: &[LastSeen]) -> Roles {
    resolve_roles(history, &seen(all_last_seen), Instant::now())
}

/// Returns what a program remembers that saw these nodes, one observation after the other.
fn after(observations: &[[LastSeen; 3]]) -> Memory {
    let mut history = RoleHistory::default();
    for all_last_seen in observations {
        see(&mut history, all_last_seen);
    }
    history.remembered().memory.expect("the nodes have shown a cluster")
}

/// The memory of a program that saw the promotion of the second node.
fn of_a_promotion() -> Memory {
    after(&[
        [writer(OURS, 1), standby(OURS, 1), standby(OURS, 1)],
        [LastSeen::Down, writer(OURS, 2), standby(OURS, 1)],
    ])
}

/// Returns the history of a program that starts with this memory.
///
/// It goes through the text form, as in a restart.
fn restarted(memory: &Memory) -> RoleHistory {
    let mut history = RoleHistory::default();
    see(&mut history, &[LastSeen::Never, LastSeen::Never, LastSeen::Never]);
    let memory = Memory::from_text(&memory.to_text()).expect("its own text");
    assert!(history.recall(&memory));
    history
}

// --- what a restarted program knows

/// The program took the old primary for the primary.
#[test]
fn an_old_primary_that_a_restarted_program_reaches_alone_is_stale() {
    let old_alone = [writer(OURS, 1), LastSeen::Down, LastSeen::Down];
    let forgetful = see(&mut RoleHistory::default(), &old_alone);
    assert_eq!(forgetful.primary, Some(0), "nothing shows the promotion");

    let mut history = restarted(&of_a_promotion());
    let roles = see(&mut history, &old_alone);
    assert_eq!((roles.by_node[0], roles.primary), (NodeRole::StalePrimary, None));
    let roles = see(&mut history, &[writer(OURS, 1), writer(OURS, 2), LastSeen::Down]);
    assert_eq!(roles.primary, Some(1), "the new one is back");
}

#[test]
fn a_remembered_identifier_lets_no_node_write_before_every_node_was_probed() {
    let mut history = restarted(&after(&[[writer(OURS, 1), standby(OURS, 1), standby(OURS, 1)]]));
    let roles = see(&mut history, &[writer(OURS, 1), LastSeen::Never, LastSeen::Never]);
    assert_eq!(roles.primary, None, "another node may show a promotion");
    let roles = see(&mut history, &[writer(OURS, 1), LastSeen::Down, LastSeen::Down]);
    assert_eq!(roles.primary, Some(0));
}

/// As soon as the program was started again, one of the two took writes.
#[test]
fn a_split_brain_outlives_the_program() {
    let promoted = [writer(OURS, 2), writer(OURS, 2), LastSeen::Down];
    let memory = after(&[[standby(OURS, 1), standby(OURS, 1), writer(OURS, 1)], promoted]);
    let mut history = restarted(&memory);
    let roles = see(&mut history, &[writer(OURS, 2), LastSeen::Down, LastSeen::Down]);
    assert_eq!((roles.primary, roles.conflicting.clone()), (None, vec![0, 1]));
    let roles = see(&mut history, &[writer(OURS, 2), standby(OURS, 2), LastSeen::Down]);
    assert_eq!(roles.primary, Some(0), "the other one was rebuilt");
}

#[test]
fn one_server_under_another_name_is_no_split_brain_after_a_restart() {
    let process = |observation: Observation| {
        let server = ServerIdentity { started_at_micros: 10, port: 5001, address: None };
        LastSeen::Observed(Observation { server: Some(server), ..observation })
    };
    let server = || process(Observation::primary(2, 100, Instant::now()));
    let mut history = restarted(&after(&[[server(), LastSeen::Down, LastSeen::Down]]));
    let roles = see(&mut history, &[LastSeen::Down, server(), LastSeen::Down]);
    assert_eq!((roles.primary, roles.conflicting), (Some(1), Vec::new()));
}

#[test]
fn a_remembered_timeline_is_forgotten_only_after_its_node_has_shown_it_again() {
    let by = |started_at_micros, observation: Observation| {
        let server = ServerIdentity { started_at_micros, port: 5432, address: None };
        LastSeen::Observed(Observation { server: Some(server), ..observation })
    };
    let at = |timeline| Observation::standby(timeline, 100, Instant::now());
    let old = || writer(OURS, 1);
    let mut history = restarted(&of_a_promotion());
    let roles = see(&mut history, &[old(), by(20, at(1)), standby(OURS, 1)]);
    assert_eq!(roles.primary, None, "another server may have the address now");

    let mut history = restarted(&of_a_promotion());
    see(&mut history, &[old(), by(20, at(2)), standby(OURS, 1)]);
    let before = history.remembered();
    let roles = see(&mut history, &[old(), by(21, at(1)), standby(OURS, 1)]);
    assert_eq!((roles.primary, roles.lost.map(|lost| lost.timeline)), (Some(0), Some(2)));
    let now = history.remembered();
    assert_eq!(now.memory.map(|memory| memory.timeline), Some(1));
    assert_ne!(now.forgettings, before.forgettings, "the file may name a lower timeline");
}

#[test]
fn the_memory_of_another_cluster_is_dropped_once_most_nodes_contradict_it_and_none_confirms_it() {
    let foreign = Memory { system_identifier: OTHER, ..of_a_promotion() };
    let ours = [writer(OURS, 1), standby(OURS, 1), LastSeen::Down];
    let mut history = restarted(&foreign);
    let roles = see(&mut history, &ours);
    assert_eq!((roles.primary, roles.system_identifier), (Some(0), Some(OURS)));
    assert_eq!(history.remembered().memory.map(|memory| memory.system_identifier), Some(OURS));

    let mut history = restarted(&foreign);
    let roles = see(&mut history, &[writer(OURS, 1), LastSeen::Down, LastSeen::Down]);
    assert_eq!(roles.by_node[0], NodeRole::Foreign, "one of three is no majority");

    let mut history = restarted(&foreign);
    let roles = see(&mut history, &[writer(OURS, 1), standby(OURS, 1), writer(OTHER, 2)]);
    assert_eq!(roles.primary, None, "one node confirms it");
    assert!(roles.mismatch.is_some());
}

#[test]
fn a_running_set_takes_nothing_from_the_memory_of_another_cluster() {
    let mut history = RoleHistory::default();
    let ours = [writer(OURS, 1), standby(OURS, 1), LastSeen::Down];
    see(&mut history, &ours);
    assert!(!history.recall(&Memory { system_identifier: OTHER, ..of_a_promotion() }));
    assert_eq!(see(&mut history, &ours).primary, Some(0));
    assert!(history.recall(&of_a_promotion()));
    assert_eq!(see(&mut history, &ours).by_node[0], NodeRole::StalePrimary);
}

#[test]
fn an_operator_s_decision_forgets_the_memory_as_well() {
    let mut history = restarted(&of_a_promotion());
    let old_alone = [writer(OURS, 1), LastSeen::Down, LastSeen::Down];
    assert_eq!(see(&mut history, &old_alone).primary, None);
    let before = history.remembered().forgettings;
    history.forget(Instant::now());
    assert_eq!(history.remembered(), Remembered { memory: None, forgettings: before + 1 });
    assert_eq!(see(&mut history, &old_alone).primary, Some(0));
}

/// A memory that changed with each probe would be written with each probe.
#[test]
fn what_is_remembered_changes_only_with_roles_and_timelines() {
    let mut history = RoleHistory::default();
    let at = |position| {
        let now = Instant::now();
        [Observation::primary(1, position, now), Observation::standby(1, position, now)]
            .map(LastSeen::Observed)
    };
    see(&mut history, &at(100));
    let first = history.remembered();
    see(&mut history, &at(9_000));
    assert_eq!(history.remembered(), first);
}

// --- the text

fn memories() -> impl Strategy<Value = Memory> {
    let process = (any::<i64>(), any::<u16>())
        .prop_map(|(started_at_micros, port)| Process { started_at_micros, port });
    let node = (any::<bool>(), prop::option::of(process))
        .prop_map(|(wrote, process)| RememberedNode { wrote, process });
    let nodes = prop::collection::btree_map(any::<String>().prop_map(Arc::from), node, 0..5);
    (any::<u64>(), 1_u32.., any::<bool>(), nodes).prop_map(
        |(system_identifier, timeline, departed, nodes)| Memory {
            system_identifier,
            timeline,
            departed,
            nodes,
        },
    )
}

proptest! {
    #[test]
    fn a_memory_is_read_as_it_was_written(memory in memories()) {
        prop_assert_eq!(Memory::from_text(&memory.to_text()), Ok(memory));
    }

    #[test]
    fn a_damaged_text_is_an_error_or_another_memory_and_never_a_panic(
        memory in memories(),
        cut in any::<prop::sample::Index>(),
        other in any::<String>(),
    ) {
        let mut text = memory.to_text();
        let mut cut = cut.index(text.len());
        while !text.is_char_boundary(cut) {
            cut -= 1;
        }
        text.replace_range(cut.., &other);
        let _ = Memory::from_text(&text);
        let _ = Memory::from_text(&other);
    }
}

#[test]
fn the_text_has_the_documented_form() {
    let text = of_a_promotion().to_text();
    let rest = text.split_once('\n').map(|(_, rest)| rest);
    assert_eq!(
        rest,
        Some(
            "version = 1\nsystem_identifier = \"7\"\ntimeline = 2\n\n[[nodes]]\naddress = \"node-1:5432\"\n\
             wrote = true\n"
        )
    );
}

#[test]
fn a_text_that_is_no_memory_says_why() {
    let good = of_a_promotion().to_text();
    let corrupt = |text: &str| match Memory::from_text(text) {
        Err(TextError::Corrupt(reason)) => reason,
        other => panic!("{other:?}: {text}"),
    };
    assert_eq!(corrupt(""), "it is empty");
    assert_eq!(corrupt("\0\0\0"), "it is empty");
    assert_eq!(corrupt(good.split_once('\n').unwrap().0), "it has no version");
    for (from, to) in [
        ("timeline = 2", "timeline = 0"),
        ("timeline = 2", "timeline = -1"),
        ("timeline = 2", "timeline = 99999999999"),
        ("timeline = 2", ""),
        ("timeline = 2", "timeline = 2\ntimeline = 2"),
        ("\"7\"", "\"seven\""),
        ("\"7\"", "7"),
        ("version = 1", "version = 0"),
        ("version = 1", "version = \"1\""),
        ("wrote = true", "wrote = 1"),
        ("wrote = true", "port = 5432"),
        ("wrote = true", "port = 70000\nstarted_at_us = 1"),
        ("wrote = true", "unknown = true"),
        ("wrote = true", "[[nodes]]\naddress = \"node-1:5432\""),
        ("[[nodes]]", "[[nodes"),
    ] {
        assert!(good.contains(from), "{from}");
        corrupt(&good.replacen(from, to, 1));
    }
    let newer = good.replace("version = 1", "version = 2\nanything = []");
    assert_eq!(Memory::from_text(&newer), Err(TextError::Newer(2)));
    assert_eq!(Memory::from_text("password = \"secret\""), Err(TextError::Unmarked));
}

// --- the decision

fn write(memory: &Memory, keep: Option<Kept>) -> Step {
    Step::Write { memory: memory.clone(), keep }
}

#[test]
fn a_file_is_written_if_something_changed_and_kept_if_it_is_evidence() {
    let memory = of_a_promotion();
    let lower = Memory { timeline: 1, ..memory.clone() };
    let foreign = Memory { system_identifier: OTHER, ..memory.clone() };
    let valid = |memory: &Memory| Found::Valid(memory.clone());
    let wanted = Remembered { memory: Some(memory.clone()), forgettings: 0 };
    for (found, expected) in [
        (Found::Missing, write(&memory, None)),
        (valid(&memory), Step::Nothing),
        (valid(&lower), write(&memory, None)),
        (valid(&foreign), write(&memory, Some(Kept::Foreign))),
        (Found::Corrupt("torn".into()), write(&memory, Some(Kept::Corrupt))),
        (Found::Untouchable("newer".into()), Step::Refuse("newer".into())),
    ] {
        assert_eq!(plan(&found, None, &wanted, false), expected, "{found:?}");
    }
    let nothing = Remembered::default();
    for found in [Found::Missing, valid(&memory), Found::Corrupt("torn".into())] {
        assert_eq!(plan(&found, None, &nothing, false), Step::Nothing);
    }
}

#[test]
fn two_programs_with_one_file_only_raise_the_timeline() {
    let memory = of_a_promotion();
    let wanted = Remembered { memory: Some(memory.clone()), forgettings: 0 };
    let higher = Found::Valid(Memory { timeline: 3, ..memory.clone() });
    assert_eq!(plan(&higher, Some(&memory), &wanted, false), Step::Nothing);
    // On one timeline, the file has what both saw.
    let node = RememberedNode { wrote: true, process: None };
    let theirs = Memory { nodes: BTreeMap::from([("node-2:5432".into(), node)]), ..memory.clone() };
    let mut both = memory.clone();
    both.nodes.extend(theirs.nodes.clone());
    let found = Found::Valid(theirs.clone());
    assert_eq!(plan(&found, Some(&memory), &wanted, false), write(&both, None));
    assert_eq!(plan(&Found::Valid(both.clone()), Some(&memory), &wanted, false), Step::Nothing);
    // What this program wrote itself is outdated.
    assert_eq!(plan(&found, Some(&theirs), &wanted, false), write(&memory, None));
}

#[test]
fn a_set_that_forgot_lowers_the_timeline_or_removes_the_file() {
    let memory = of_a_promotion();
    let found =
        |timeline, system_identifier| Found::Valid(Memory { timeline, system_identifier, ..memory.clone() });
    let wanted = Remembered { memory: Some(memory.clone()), forgettings: 1 };
    assert_eq!(plan(&found(3, OURS), None, &wanted, true), write(&memory, None));
    assert_eq!(plan(&found(3, OTHER), None, &wanted, true), write(&memory, None), "the cluster was replaced");
    let nothing = Remembered { memory: None, forgettings: 1 };
    assert_eq!(plan(&found(3, OURS), None, &nothing, true), Step::Remove);
    assert_eq!(plan(&Found::Corrupt("torn".into()), None, &nothing, true), Step::Nothing, "it is evidence");
}
