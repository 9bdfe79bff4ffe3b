package probes

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

const replacedChild = "REPLACED_CHILD"

// TestReplaced: where a file can only be opened by its path, it is when it stands there, however
// the kernel numbers it; and what is replaced or deleted is named, not taken for what stands
// there now.
func TestReplaced(t *testing.T) {
	needRoot(t)
	if dirs := os.Getenv(replacedChild); dirs != "" {
		for _, dir := range strings.Split(dirs, ":") {
			t.Run(filepath.Base(dir), func(t *testing.T) { replace(t, filepath.Join(dir, "program")) })
		}
		return
	}
	dir := t.TempDir()
	plain, lower, other := filepath.Join(dir, "plain"), filepath.Join(dir, "lower"), filepath.Join(dir, "other")
	for _, d := range []string{plain, lower, other} {
		if err := os.Mkdir(d, 0o755); err != nil {
			t.Fatal(err)
		}
	}
	mount := func(kind, at, options string) {
		if err := unix.Mount(kind, at, kind, 0, options); err != nil {
			t.Fatalf("mount %s: %v", kind, err)
		}
		t.Cleanup(func() { unix.Unmount(at, unix.MNT_DETACH) })
	}
	mount("tmpfs", other, "")
	rewritable(t, plain, "program")
	rewritable(t, lower, "program")
	all := []string{plain}
	for _, upper := range []string{dir, other} { // on the lower layer's file system, and not
		at := filepath.Join(upper, "overlay-on-"+filepath.Base(upper))
		options := "lowerdir=" + lower
		for _, sub := range []string{"upper", "work"} {
			if err := os.MkdirAll(filepath.Join(upper, sub), 0o755); err != nil {
				t.Fatal(err)
			}
			options += fmt.Sprintf(",%sdir=%s", sub, filepath.Join(upper, sub))
		}
		if err := os.Mkdir(at, 0o755); err != nil {
			t.Fatal(err)
		}
		mount("overlay", at, options)
		all = append(all, at)
	}
	child := exec.Command("setpriv", "--bounding-set", "-sys_admin,-checkpoint_restore", os.Args[0], "-test.run=^TestReplaced$", "-test.v")
	child.Env = append(os.Environ(), replacedChild+"="+strings.Join(all, ":"))
	out, err := child.CombinedOutput()
	if err != nil {
		t.Errorf("%v\n%s", err, out)
	}
	t.Logf("%s", out)
}

// replace replaces a program that runs.
func replace(t *testing.T, program string) {
	f := idle()
	opens := func(what string, m mapping) *os.File {
		t.Helper()
		file, err := openMapped("/proc", m)
		if err != nil {
			t.Fatalf("%s: %v", what, err)
		}
		t.Cleanup(func() { file.Close() })
		return file
	}
	old := begin(t, program, "x", waits)
	if _, err := os.Stat(fmt.Sprintf("/proc/%d/map_files/%x-%x", old.pid, old.start, old.end)); !errors.Is(err, fs.ErrPermission) {
		t.Fatalf("the mapping itself: %v, want it refused", err)
	}
	file := opens("in its place", old)
	if of, err := statInode(file); err == nil {
		t.Logf("the file is %v, and as its mapping %v", of, old.seen)
	}
	as, err := stateOf(file, old.seen)
	if err != nil {
		t.Fatal(err)
	}
	copied(t, program, program+".new")
	other := time.Unix(1, 0)
	if err := errors.Join(os.Chtimes(program+".new", other, other), os.Rename(program+".new", program)); err != nil {
		t.Fatal(err)
	}
	opens("what replaced it", begin(t, program, "x", waits))

	now, ok := mappingOf(t, old.pid, program)
	if !ok || !now.deleted {
		t.Fatalf("%+v, want it deleted", now)
	}
	if !still("/proc", now, as) {
		t.Error("what replaced it is taken for it, written to")
	}
	for what, m := range map[string]mapping{"heard of before": old, "replaced": now} {
		if _, err := openMapped("/proc", m); err != errReplaced {
			t.Errorf("%s: %v", what, err)
		}
	}
	f.mapped(now, false)
	if u := f.unseen[now.pid]; u.Reason != "attach_failed" || u.Detail != errReplaced.Error() {
		t.Errorf("named as %+v", u)
	}
	if err := os.Remove(program); err != nil {
		t.Fatal(err)
	}
	if _, err := openMapped("/proc", now); err != errReplaced {
		t.Errorf("deleted: %v", err)
	}
	process, err := os.FindProcess(int(now.pid))
	if err != nil {
		t.Fatal(err)
	}
	process.Kill()
	process.Wait()
	if _, err := openMapped("/proc", now); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("of a process that has ended: %v", err)
	}
}
