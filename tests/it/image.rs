//! The Dockerfile, as a text: what no build on this machine would notice. That an image can be made
//! and its pods run is for the tests on a cluster.

/// The instructions of the Dockerfile: each word by word, the first one in capitals.
fn instructions() -> Vec<Vec<String>> {
    let text = std::fs::read_to_string("Dockerfile").unwrap();
    let lines = text.lines().filter(|line| !line.trim().is_empty());
    let lines = lines.filter(|line| !line.starts_with('#') && !line.starts_with(' '));
    let words = |line: &str| line.split_whitespace().map(str::to_owned).collect();
    lines.map(words).collect()
}

fn all(instruction: &str) -> Vec<Vec<String>> {
    let mut all = instructions();
    all.retain(|words| words[0] == instruction);
    assert!(!all.is_empty(), "no {instruction}");
    all
}

/// A tag may become another image tomorrow.
#[test]
fn base_images_are_pinned_by_digest() {
    let mut stages = vec!["scratch".to_owned()];
    for from in all("FROM") {
        let image = &from[1];
        let digest = image.split_once("@sha256:").map(|(_, digest)| digest);
        let hex =
            |digest: &str| digest.len() == 64 && digest.chars().all(|c| c.is_ascii_hexdigit());
        assert!(digest.is_some_and(hex) || stages.contains(image), "{image}");
        stages.extend(from.get(3).cloned());
    }
    assert_eq!(all("FROM").last().unwrap()[1], "scratch");
}

/// Kubernetes cannot tell whether a user of a name is root, and refuses it with `runAsNonRoot`.
#[test]
fn the_user_is_a_number_and_not_root() {
    let user = all("USER").pop().unwrap().pop().unwrap();
    let ids: Vec<u32> = user.split(':').map(|id| id.parse().unwrap()).collect();
    assert_eq!(ids.len(), 2, "{user}");
    assert!(ids.iter().all(|id| *id > 0), "{user}");
}

#[test]
fn the_image_is_built_with_the_compiler_of_the_project() {
    let file = std::fs::read_to_string("rust-toolchain.toml").unwrap();
    let channel = file
        .lines()
        .find_map(|line| line.strip_prefix("channel = "));
    let channel = channel.unwrap().trim_matches('"');
    let build = &all("FROM")[0][1];
    assert!(build.starts_with(&format!("rust:{channel}-")), "{build}");
    let wanted = format!("RUSTUP_TOOLCHAIN={channel}");
    assert!(
        all("ENV").iter().any(|words| words[1] == wanted),
        "{wanted}"
    );
    // What `cargo` refuses to build with an older one.
    let manifest = std::fs::read_to_string("Cargo.toml").unwrap();
    let least = manifest
        .lines()
        .find_map(|line| line.strip_prefix("rust-version = "));
    let least = least.unwrap().trim_matches('"');
    assert!(channel.starts_with(least), "{least}");
}
