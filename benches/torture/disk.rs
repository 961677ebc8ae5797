//! A small disk of its own for the cluster, which can be filled. Needs the right to mount.

use std::fs::{self, File};
use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::Command;

pub struct Disk {
    /// Where the cluster may live.
    pub place: PathBuf,
    /// None: mounted. Else why not.
    pub refused: Option<String>,
}

impl Disk {
    /// At a place that is made for it; a plain directory where mounting is not allowed.
    pub fn mount(place: PathBuf, megabytes: u64) -> Self {
        fs::create_dir(&place).unwrap();
        let options = format!("size={megabytes}m,mode=755");
        let mounted = Command::new("mount")
            .args(["-t", "tmpfs", "-o", &options, "fastpubsub-torture"])
            .arg(&place)
            .output();
        let refused = match mounted {
            Ok(output) if output.status.success() => None,
            Ok(output) => Some(String::from_utf8_lossy(&output.stderr).trim().to_owned()),
            Err(error) => Some(format!("mount: {error}")),
        };
        Self { place, refused }
    }

    fn filler(&self) -> PathBuf {
        self.place.join("filler")
    }

    /// Take every byte that is left.
    pub fn fill(&self) {
        let mut filler = File::create(self.filler()).unwrap();
        let zeros = vec![0; 1 << 20];
        for piece in [1 << 20, 1 << 12] {
            while filler.write_all(&zeros[..piece]).is_ok() {}
        }
    }

    pub fn free(&self) {
        fs::remove_file(self.filler()).unwrap();
    }

    /// Nobody may use it any more.
    pub fn unmount(&self) {
        if self.refused.is_none() {
            unmount(&self.place);
        }
    }
}

fn unmount(place: &Path) {
    let output = Command::new("umount").arg(place).output().unwrap();
    let text = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "umount: {text}");
}
