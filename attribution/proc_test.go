package attribution

import (
	"errors"
	"maps"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
	"unicode/utf8"

	"github.com/tollwire/tollwire/flow"
)

func TestParseStat(t *testing.T) {
	const rest = " S 1 100 100 0 -1 4194560 1 2 3 4 5 6 7 8 20 0 1 0 91827 1000000 10"
	for _, c := range []struct {
		in, comm string
		start    uint64
		fails    bool
	}{
		{in: "100 (curl)" + rest, comm: "curl", start: 91827},
		{in: "100 (a b)" + rest, comm: "a b", start: 91827},
		{in: "100 (evil) S 1 1)" + rest, comm: "evil) S 1 1", start: 91827},
		{in: "100 (())" + rest, comm: "()", start: 91827},
		{in: "100 ()" + rest, start: 91827},
		{in: "", fails: true},
		{in: "100 curl S 1", fails: true},
		{in: "100 )curl(" + rest, fails: true},
		{in: "100 (curl) S 1 2 3", fails: true},
		{in: "100 (curl)" + strings.Replace(rest, "91827", "x", 1), fails: true},
	} {
		got, err := parseStat(c.in)
		if (err != nil) != c.fails {
			t.Errorf("parseStat(%q): err %v, want failure %v", c.in, err, c.fails)
		} else if err == nil && (got.comm != c.comm || got.start != c.start || got.state != 'S') {
			t.Errorf("parseStat(%q) = %+v, want %q, %d", c.in, got, c.comm, c.start)
		}
	}
}

func FuzzStat(f *testing.F) {
	f.Add("100 (evil) S 1 1) S 1 100 100 0 -1 4194560 1 2 3 4 5 6 7 8 20 0 1 0 91827 1000000 10")
	if self, err := os.ReadFile("/proc/self/stat"); err == nil {
		f.Add(string(self))
	}
	f.Fuzz(func(t *testing.T, s string) {
		st, err := parseStat(s)
		if err == nil && !strings.Contains(s, "("+st.comm+")") {
			t.Errorf("%q: comm %q", s, st.comm)
		}
	})
}

// startTicks is field 22 of a living process's stat.
func startTicks(t *testing.T, pid int) uint64 {
	t.Helper()
	b, err := os.ReadFile(filepath.Join("/proc", strconv.Itoa(pid), "stat"))
	if err != nil {
		t.Fatal(err)
	}
	st, err := parseStat(string(b))
	if err != nil {
		t.Fatal(err)
	}
	return st.start
}

// sleeper starts a process that ends with the test.
func sleeper(t *testing.T, env ...string) *exec.Cmd {
	t.Helper()
	cmd := exec.Command("sleep", "60")
	cmd.Env = append(os.Environ(), env...)
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { cmd.Process.Kill(); cmd.Wait() })
	return cmd
}

func TestReadProcess(t *testing.T) {
	cmd := sleeper(t, "OTEL_SERVICE_NAME=dozer", "SECRET=hunter2",
		"OTEL_RESOURCE_ATTRIBUTES=service.name=ignored,service.version=1.2,team=a%2Cb,k8s.pod.name=lie")
	ticks := startTicks(t, cmd.Process.Pid)
	p := flow.Proc{PID: uint32(cmd.Process.Pid), Start: ticks*nsPerTick + nsPerTick - 1}

	var commands []pattern
	for _, s := range []string{"sleep*", `re:(?P<n>\d+)$`, "wake*"} {
		c, err := compilePattern(s)
		if err != nil {
			t.Fatal(err)
		}
		commands = append(commands, c)
	}
	pr, lines, err := readProcess("/proc", p, true, commands)
	if err != nil {
		t.Fatal(err)
	}
	if pr.exe != "sleep" || filepath.Base(pr.exePath) != "sleep" {
		t.Errorf("exe %q, path %q", pr.exe, pr.exePath)
	}
	if len(pr.commands) != 2 || pr.commands["sleep*"] == nil || pr.commands[`re:(?P<n>\d+)$`]["n"] != "60" {
		t.Errorf("commands %v", pr.commands)
	}
	if pr.env.name != "dozer" || pr.env.version != "1.2" || !maps.Equal(pr.env.other, map[string]string{"team": "a,b"}) {
		t.Errorf("environment: %+v", pr.env)
	}
	if len(lines) == 0 {
		t.Error("no cgroup lines")
	}
	if pr, _, err := readProcess("/proc", p, false, nil); err != nil || pr.env.name != "" {
		t.Errorf("environment read though it was not wanted: %+v, %v", pr.env, err)
	}
}

// A process with the same id but another start time is another process.
func TestReusedPID(t *testing.T) {
	cmd := sleeper(t)
	pid, ticks := uint32(cmd.Process.Pid), startTicks(t, cmd.Process.Pid)
	for _, start := range []uint64{ticks*nsPerTick - 1, (ticks + 1) * nsPerTick} {
		if _, _, err := readProcess("/proc", flow.Proc{PID: pid, Start: start}, false, nil); !errors.Is(err, errGone) {
			t.Errorf("start %d beside ticks %d: err %v, want %v", start, ticks, err, errGone)
		}
	}
	cmd.Process.Kill()
	cmd.Wait()
	if _, _, err := readProcess("/proc", flow.Proc{PID: pid, Start: ticks * nsPerTick}, false, nil); !errors.Is(err, errGone) {
		t.Errorf("ended process: err %v, want %v", err, errGone)
	}
}

func TestExecutable(t *testing.T) {
	for _, c := range []struct{ path, comm, command, want string }{
		{"/usr/bin/python3.11", "planner", "python3 planner.py", "python3.11"},
		{"", "a-very-long-nam", "/opt/a-very-long-name --x", "a-very-long-name"},
		{"", "worker", "python3 worker.py", "worker"},
		{"", "curl", "", "curl"},
		{"", "bad\x01name", "", "badname"},
	} {
		if got := executable(c.path, c.comm, c.command); got != c.want {
			t.Errorf("executable(%q, %q, %q) = %q, want %q", c.path, c.comm, c.command, got, c.want)
		}
	}
}

func TestClean(t *testing.T) {
	for _, c := range []struct {
		in    string
		limit int
		want  string
	}{
		{" a b ", 10, "a b"},
		{"a\nb\x00c", 10, "abc"},
		{"äöü", 3, "ä"},
		{"äöü", 4, "äö"},
		{"a\xffb", 10, "ab"},
		{"\u202etrick", 10, "trick"},
		{"日本", 5, "日"},
	} {
		if got := clean(c.in, c.limit); got != c.want {
			t.Errorf("clean(%q, %d) = %q, want %q", c.in, c.limit, got, c.want)
		}
	}
}

func FuzzMembers(f *testing.F) {
	f.Add("tollwire.node=planner;prop=1, a=b%2Cc,=,x,%zz=1,k=%zz")
	f.Fuzz(func(t *testing.T, list string) {
		n := 0
		eachMember(list, func(k, v string) {
			if n++; k == "" || n > maxAttributes {
				t.Errorf("%q: key %q, member %d", list, k, n)
			}
			if c := clean(v, 64); !utf8.ValidString(c) || len(c) > 64 || clean(c, 64) != c {
				t.Errorf("clean(%q) = %q", v, c)
			}
		})
	})
}
