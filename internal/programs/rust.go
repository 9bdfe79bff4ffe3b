package programs

import (
	"context"
	"embed"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
)

//go:embed rust
var rustSource embed.FS

// fromCrates gets the crates of Debian that the client needs, without installing them,
// and builds it of them alone.
const fromCrates = `set -e
rm -rf debs crates && mkdir debs && cd debs
apt-get download -qq $(apt-get install -s --no-install-recommends -o Dir::State::status=/dev/null librust-reqwest-dev |
  awk '/^Inst librust-/ {print $2}')
cd ..
for d in debs/*.deb; do dpkg -x "$d" crates; done
rm -rf debs
mkdir -p rust/.cargo
cat >rust/.cargo/config.toml <<EOF
[source.crates-io]
replace-with = "debian"
[source.debian]
directory = "$PWD/crates/usr/share/cargo/registry"
EOF
cargo build --release --offline --manifest-path rust/Cargo.toml --target-dir target --config rust/.cargo/config.toml
mv target/release/client client
rm -rf crates target`

// RustClient is a program with rustls and ring of Debian's crates, its symbols kept.
var RustClient = Program{Name: "rust", Version: "reqwest 0.11", Library: "ring"}

// BuildRust builds RustClient in a folder of its own below dir, unless it is there: some
// minutes. It needs apt and cargo, which hack/setup rust installs.
func BuildRust(ctx context.Context, dir string) (*Installed, error) {
	home := filepath.Join(dir, "rust-client")
	in := &Installed{RustClient, filepath.Join(home, "client")}
	if _, err := os.Stat(in.Path); err == nil {
		return in, nil
	}
	for _, tool := range []string{"cargo", "apt-get"} {
		if _, err := exec.LookPath(tool); err != nil {
			return nil, fmt.Errorf("build the Rust client of Debian's crates (hack/setup rust installs what it needs): %w", err)
		}
	}
	if err := os.RemoveAll(home); err != nil {
		return nil, err
	}
	if err := os.CopyFS(home, rustSource); err != nil {
		return nil, err
	}
	cmd := exec.CommandContext(ctx, "sh", "-c", fromCrates)
	cmd.Dir = home
	if out, err := cmd.CombinedOutput(); err != nil {
		return nil, fmt.Errorf("build the Rust client: %w\n%s", err, tail(out))
	}
	return in, nil
}
