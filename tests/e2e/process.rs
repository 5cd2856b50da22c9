//! The processes of pods on our own cluster: they run on this machine. How they are found, and killed
//! as by the loss of their node.

use serde_json::Value;

/// The process of a pod's container.
pub fn of(pod: &Value) -> Option<u32> {
    let uid = pod["metadata"]["uid"].as_str()?;
    let processes = std::fs::read_dir("/proc").ok()?.flatten();
    let mut ids = processes.filter_map(|entry| entry.file_name().to_str()?.parse::<u32>().ok());
    ids.find(|id| {
        let read = |file: &str| std::fs::read(format!("/proc/{id}/{file}")).unwrap_or_default();
        let ours = String::from_utf8_lossy(&read("cgroup")).contains(uid);
        ours && read("cmdline").starts_with(b"/bellhop\0")
    })
}

/// kill -9 of the processes of all these pods at once: none can say or give back anything.
#[track_caller]
pub fn kill(pods: &[Value]) {
    let ids: Vec<String> = pods
        .iter()
        .filter_map(of)
        .map(|id| id.to_string())
        .collect();
    assert!(!ids.is_empty(), "no process of {} pods", pods.len());
    let mut kill = std::process::Command::new("kill");
    assert!(kill.arg("-KILL").args(ids).status().unwrap().success());
}
