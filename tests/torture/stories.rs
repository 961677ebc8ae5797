//! The story of a violation: all of one message, nothing of others, in the order of time.

use super::history::{Door, Kind, Outcome, Verb};
use super::script::{SECOND, Script, id};
use super::story::{About, tell};

#[test]
fn a_story_has_every_event_of_its_message_in_the_order_of_time() {
    let mut script = Script::new();
    script.publish("jobs", 0..3, Outcome::Done);
    script.deliver("jobs-all", 2, 1);
    script.deliver("jobs-urgent", 1, 1);
    let receipt = script.deliver("jobs-all", 1, 1);
    script.fault(Kind::FreezeServer, SECOND);
    script.settle(Verb::Nack, "jobs-all", 1, Some(&receipt));
    script.reprocess("jobs-all", 1);
    script.probe(Door::Topics, Outcome::Done);

    let about = About {
        subscription: Some("jobs-all"),
        id: Some(id(1)),
        number: Some(1),
        around: None,
    };
    let story = tell(&script.history, &about);

    let parts = [
        "publish of 1 among 0..3 to jobs",
        "delivery 00000000-0000-0000-0000-000000000002 of 1 attempts 1",
        "fault FreezeServer of server 0",
        "Nack by r1-",
        "reprocess 00000000-0000-0000-0000-000000000002 in jobs-all",
    ];
    assert_eq!(story.len(), parts.len(), "{story:#?}");
    for part in parts {
        assert!(
            story.iter().any(|line| line.contains(part)),
            "{part}: {story:#?}"
        );
    }
    assert!(story.is_sorted());
}

#[test]
fn a_story_of_a_time_has_the_probes_and_faults_of_it() {
    let mut script = Script::new();
    script.probe(Door::Liveness, Outcome::Done);
    script.at += SECOND;
    let around = Some((script.at, script.at + SECOND));
    script.fault(Kind::KillServer, SECOND);
    script.probe(Door::Topics, Outcome::NoConnection);

    let about = About {
        around,
        ..About::default()
    };
    let story = tell(&script.history, &about);

    assert_eq!(story.len(), 2, "{story:#?}");
    for part in ["fault KillServer", "probe Topics"] {
        assert!(story.iter().any(|line| line.contains(part)), "{story:#?}");
    }
}
