package probes

import (
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/tollwire/tollwire/flow"
)

// TestOrphans: what was mounted in a namespace that is gone is not kept mounted by probes
// on its programs.
func TestOrphans(t *testing.T) {
	anyWay(t)
	c := start(t, Config{})
	dir := t.TempDir()
	program, image, at := rewritable(t, dir, "program"), filepath.Join(dir, "image"), filepath.Join(dir, "at")
	if err := os.Mkdir(at, 0o755); err != nil {
		t.Fatal(err)
	}
	run(t, nil, "truncate", "--size", "16M", image)
	run(t, nil, "mkfs.ext4", "-q", image)
	const script = `mount -o loop "$1" "$2" && cp "$3" "$2/program" && "$2/program" in-a-space-of-its-own 1000000`
	run(t, nil, "unshare", "--mount", "sh", "-c", script, "sh", image, at, program)
	if w := c.one(flow.Write, "id=in-a-space-of-its-own"); w.source != flow.SourceOpenSSL {
		t.Errorf("%v", w.source)
	}
	used := func() bool { return strings.Contains(run(t, nil, "losetup", "--list", "--noheadings"), image) }
	began := time.Now()
	for used() && time.Since(began) < 2*sweepEvery+10*time.Second {
		time.Sleep(50 * time.Millisecond)
	}
	took := time.Since(began)
	t.Logf("let go after %v", took.Round(10*time.Millisecond))
	if took > 5*time.Second {
		t.Error("the file system stayed mounted without anybody who uses it")
	}
}
