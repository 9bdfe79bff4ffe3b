package attribution

import (
	"os"
	"path/filepath"
	"testing"
	"time"
)

// fakeUnified makes a folder that looks like a cgroup2 mount.
func fakeUnified(t *testing.T, folders ...string) string {
	t.Helper()
	root := t.TempDir()
	if err := os.WriteFile(filepath.Join(root, "cgroup.controllers"), nil, 0o644); err != nil {
		t.Fatal(err)
	}
	for _, f := range folders {
		if err := os.MkdirAll(filepath.Join(root, f), 0o755); err != nil {
			t.Fatal(err)
		}
	}
	return root
}

func mustInode(t *testing.T, path string) uint64 {
	t.Helper()
	id, ok := inode(path)
	if !ok {
		t.Fatalf("no inode number of %s", path)
	}
	return id
}

func TestCgroupByID(t *testing.T) {
	root := fakeUnified(t, "a/b", "c")
	b := mustInode(t, filepath.Join(root, "a/b"))
	c := newCgroups(root, "/nonexistent", root)
	if got := c.lookup(b); got != "/a/b" {
		t.Errorf("lookup(a/b) = %q", got)
	}
	if got := c.own; got != "/" {
		t.Errorf("own = %q, want /", got)
	}
	// A removed cgroup is remembered, a new one is found by another walk.
	if err := os.Remove(filepath.Join(root, "a/b")); err != nil {
		t.Fatal(err)
	}
	if err := os.Mkdir(filepath.Join(root, "c/d"), 0o755); err != nil {
		t.Fatal(err)
	}
	d := mustInode(t, filepath.Join(root, "c/d"))
	if d == b {
		t.Skip("the file system gave the removed folder's inode number to the new one, which the kernel's cgroups never do")
	}
	if got := c.lookup(d); got != "" {
		t.Errorf("lookup(c/d) walked again at once, got %q", got)
	}
	c.walked = time.Now().Add(-time.Minute)
	if got := c.lookup(d); got != "/c/d" {
		t.Errorf("lookup(c/d) = %q", got)
	}
	if got := c.lookup(b); got != "/a/b" {
		t.Errorf("lookup of the removed a/b = %q", got)
	}
	if got := c.lookup(0); got != "" {
		t.Errorf("lookup(0) = %q", got)
	}
}

// The agent's own cgroup namespace is rooted somewhere below; paths that it reads
// are relative to that.
func TestCgroupNamespace(t *testing.T) {
	root := fakeUnified(t, "kubepods/pod1/agent", "kubepods/pod2/app")
	own := filepath.Join(root, "kubepods/pod1/agent")
	if err := os.WriteFile(filepath.Join(own, "cgroup.controllers"), nil, 0o644); err != nil {
		t.Fatal(err)
	}
	c := newCgroups(own, root)
	for in, want := range map[string]string{
		"/":                    "/kubepods/pod1/agent",
		"/../../pod2/app":      "/kubepods/pod2/app",
		"/../../../init.scope": "/init.scope",
	} {
		if got := c.absolute(in); got != want {
			t.Errorf("absolute(%q) = %q, want %q", in, got, want)
		}
	}
	if c := newCgroups("/nonexistent", root); c.absolute("/../x") != "/../x" {
		t.Errorf("a path was made up: %q", c.absolute("/../x"))
	}
}

// On the real mount: the id of a cgroup is its folder's inode number.
func TestCgroupReal(t *testing.T) {
	mount := unified("/sys/fs/cgroup")
	if mount == "" {
		t.Skip("no cgroup v2 hierarchy is mounted at /sys/fs/cgroup")
	}
	dir := filepath.Join(mount, "tollwire-attribution-test")
	if err := os.Mkdir(dir, 0o755); err != nil {
		t.Skipf("needs root: %v", err)
	}
	defer os.Remove(dir)
	c := newCgroups("/sys/fs/cgroup", "/sys/fs/cgroup")
	if got := c.lookup(mustInode(t, dir)); got != "/tollwire-attribution-test" {
		t.Errorf("lookup = %q", got)
	}
	if c.own == "" {
		t.Error("the agent's own cgroup was not found")
	}
}
