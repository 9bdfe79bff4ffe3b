package e2e

import (
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"

	"github.com/tollwire/tollwire/cmd/llmsim/ledgercheck"
	"github.com/tollwire/tollwire/internal/clients"
)

// cgroup makes a cgroup as a runtime does for a container, and returns its folder.
func cgroup(t *testing.T, path string) string {
	t.Helper()
	for _, mount := range []string{"/sys/fs/cgroup", "/sys/fs/cgroup/unified"} {
		if _, err := os.Stat(filepath.Join(mount, "cgroup.controllers")); err != nil {
			continue
		}
		dir := filepath.Join(mount, path)
		if err := os.MkdirAll(dir, 0o755); err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() {
			for ; dir != mount; dir = filepath.Dir(dir) {
				if err := os.Remove(dir); err != nil {
					t.Error(err)
				}
			}
		})
		return dir
	}
	t.Skip("no cgroup v2 hierarchy is mounted: the kernel's ids of cgroups say nothing")
	return ""
}

// TestGoneBeforeItIsRead: a process whose call the agent learns of only when it has
// ended is known by the kernel's id of its cgroup.
func TestGoneBeforeItIsRead(t *testing.T) {
	id := strings.Repeat("0123456789abcdef", 4)
	dir := cgroup(t, fmt.Sprintf("tollwire-e2e-%d/system.slice/docker-%s.scope", os.Getpid(), id))
	s := start(t)
	a := s.agent()
	curl := s.program("curl")
	call := []clients.Call{{Provider: "openai", Stream: true, PromptBytes: 100, Sim: "tokens=40;rate=20"}}
	// Another process, whose call takes two seconds, has the library tapped meanwhile.
	holder := s.run(curl, clients.Spec{BaseURL: s.sim.URL, CA: s.sim.CA, Wait: true, Calls: call})
	if err := a.Tapped(s.ctx, holder.PID); err != nil {
		t.Fatal(err)
	}
	folder, err := os.Open(dir)
	if err != nil {
		t.Fatal(err)
	}
	defer folder.Close()
	cmd := exec.CommandContext(s.ctx, curl.Path, "-sS", "--fail", "--cacert", s.sim.CA, "-H", "host: api.openai.com", "-H", "content-type: application/json",
		"-d", `{"model":"gpt-4o-mini","messages":[{"role":"user","content":"Hello."}]}`, s.sim.URL+"/v1/chat/completions")
	cmd.SysProcAttr = &syscall.SysProcAttr{UseCgroupFD: true, CgroupFD: int(folder.Fd())}

	if err := syscall.Kill(a.PID(), syscall.SIGSTOP); err != nil {
		t.Fatal(err)
	}
	out, err := cmd.CombinedOutput()
	if cerr := syscall.Kill(a.PID(), syscall.SIGCONT); cerr != nil {
		t.Fatal(cerr)
	}
	if err != nil {
		t.Fatalf("curl: %v\n%s", err, out)
	}
	s.ours[cmd.Process.Pid] = true
	if err := holder.Go(); err != nil {
		t.Fatal(err)
	}
	s.finish(holder)
	byPID := make(map[int]*ledgercheck.Record)
	for _, r := range s.matches(a, "client", 2) {
		byPID[r.PID] = r
	}
	if r := byPID[cmd.Process.Pid]; r == nil || r.ContainerID != id || r.Executable != "" {
		t.Errorf("the process that was gone: %+v", r)
	}
	if r := byPID[holder.PID]; r == nil || r.ContainerID == id || r.Executable != "curl" {
		t.Errorf("the other one: %+v", r)
	}
	if n := s.scrape(a).Sum("tollwire_attribution_processes_total", "source", "cgroup"); n < 1 {
		t.Error("no process is counted as known by its cgroup only")
	}
}
