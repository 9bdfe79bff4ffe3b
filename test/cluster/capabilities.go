//go:build linux

package main

import (
	"context"
	"encoding/json"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"

	"golang.org/x/sys/unix"
)

// bits are the capabilities that the DaemonSet may ask for.
var bits = map[string]uint{
	"BPF": unix.CAP_BPF, "PERFMON": unix.CAP_PERFMON, "SYS_PTRACE": unix.CAP_SYS_PTRACE,
	"DAC_READ_SEARCH": unix.CAP_DAC_READ_SEARCH, "CHECKPOINT_RESTORE": unix.CAP_CHECKPOINT_RESTORE,
	"SYS_RESOURCE": unix.CAP_SYS_RESOURCE, "SYS_ADMIN": unix.CAP_SYS_ADMIN,
}

// podSpec returns the DaemonSet's own pod and the capabilities that it asks for.
func (d *daemonset) podSpec(ctx context.Context) (spec map[string]any, caps []string, err error) {
	out, err := d.n.kubectl(ctx, "-n", "tollwire", "get", "daemonset", "tollwire", "-o", "jsonpath={.spec.template.spec}")
	if err != nil {
		return nil, nil, err
	}
	if err := json.Unmarshal([]byte(out), &spec); err != nil {
		return nil, nil, err
	}
	var typed struct {
		Containers []struct {
			SecurityContext struct {
				Privileged   bool
				Capabilities struct{ Add, Drop []string }
			}
		}
	}
	if err := json.Unmarshal([]byte(out), &typed); err != nil {
		return nil, nil, err
	}
	c := typed.Containers[0].SecurityContext
	if len(typed.Containers) != 1 || c.Privileged || !slices.Equal(c.Capabilities.Drop, []string{"ALL"}) {
		return nil, nil, fmt.Errorf("the DaemonSet's pod: want one container, not privileged, all capabilities dropped but some: %s", out)
	}
	return spec, c.Capabilities.Add, nil
}

// capabilities shows that the agent runs with those asked for and no other, and what
// "tollwire check" says without each of them.
func capabilities(ctx context.Context, w io.Writer, d *daemonset, v *verdict) error {
	spec, caps, err := d.podSpec(ctx)
	if err != nil {
		return err
	}
	var want uint64
	for _, c := range caps {
		want |= 1 << bits[c]
	}
	pid, err := d.pid()
	if err != nil {
		return err
	}
	status, err := os.ReadFile("/proc/" + strconv.Itoa(pid) + "/status")
	if err != nil {
		return err
	}
	for _, set := range []string{"CapPrm", "CapEff", "CapBnd"} {
		_, after, _ := strings.Cut(string(status), set+":\t")
		hex, _, _ := strings.Cut(after, "\n")
		if got, err := strconv.ParseUint(hex, 16, 64); err != nil || got != want {
			v.problem("the agent's %s is %s, want %016x: %s", set, hex, want, strings.Join(caps, ", "))
		}
	}
	fmt.Fprintf(w, "\nthe agent runs with %s and no other capability\n", strings.Join(caps, ", "))

	if _, err := os.ReadFile(filepath.Join("/proc", strconv.Itoa(pid), "root", tracefs, "events/raw_syscalls/sys_exit/id")); err != nil {
		v.problem("the agent sees no tracefs: %v", err)
	}

	whole, err := d.check(ctx, spec, "check", caps)
	if err != nil {
		return err
	}
	fmt.Fprintf(w, "\ntollwire check, with them:\n%s\n", indent(whole.text))
	if !whole.ok || !strings.HasSuffix(whole.text, "nothing is missing") {
		v.problem("tollwire check misses something with the documented capabilities")
	}
	for _, c := range caps {
		less := slices.DeleteFunc(slices.Clone(caps), func(s string) bool { return s == c })
		name := "check-without-" + strings.ToLower(strings.ReplaceAll(c, "_", "-"))
		got, err := d.check(ctx, spec, name, less)
		if err != nil {
			return err
		}
		now := changed(whole.text, got.text)
		fmt.Fprintf(w, "\nwithout %s it says instead:\n%s\n", c, indent(now))
		if !strings.Contains(now, "CAP_"+c+" (missing)") {
			v.problem("tollwire check without CAP_%s does not say that it is missing", c)
		}
	}
	return nil
}

// checked is what "tollwire check" said.
type checked struct {
	text string
	ok   bool // it ended with 0
}

// check runs "tollwire check" in the DaemonSet's own pod, but for its capabilities.
func (d *daemonset) check(ctx context.Context, spec map[string]any, name string, caps []string) (*checked, error) {
	b, err := json.Marshal(spec)
	if err != nil {
		return nil, err
	}
	var pod map[string]any
	if err := json.Unmarshal(b, &pod); err != nil {
		return nil, err
	}
	pod["restartPolicy"], pod["nodeName"] = "Never", nodeName
	c := pod["containers"].([]any)[0].(map[string]any)
	c["args"] = []string{"check"}
	delete(c, "livenessProbe")
	delete(c, "readinessProbe")
	c["securityContext"].(map[string]any)["capabilities"].(map[string]any)["add"] = caps
	manifest, err := json.Marshal(map[string]any{
		"apiVersion": "v1", "kind": "Pod",
		"metadata": map[string]any{"name": name, "namespace": "tollwire"}, "spec": pod,
	})
	if err != nil {
		return nil, err
	}
	if _, err := d.n.kubectlWith(ctx, manifest, "apply", "-f", "-"); err != nil {
		return nil, err
	}
	var phase string
	err = await(ctx, name, func() error {
		phase, err = d.n.kubectl(ctx, "-n", "tollwire", "get", "pod", name, "-o", "jsonpath={.status.phase}")
		if err == nil && phase != "Succeeded" && phase != "Failed" {
			err = fmt.Errorf("it is %s", phase)
		}
		return err
	})
	if err != nil {
		return nil, err
	}
	lines, err := d.n.said("tollwire", name+"_", "tollwire")
	if err != nil {
		return nil, err
	}
	var text strings.Builder
	for _, l := range lines {
		fmt.Fprintln(&text, l.text)
	}
	_, err = d.n.kubectl(ctx, "-n", "tollwire", "delete", "pod", name, "--wait=false")
	return &checked{brief(text.String()), phase == "Succeeded"}, err
}

// changed returns the lines of b that a does not have, however they are spaced.
func changed(a, b string) string {
	known := make(map[string]bool)
	for line := range strings.Lines(a) {
		known[strings.Join(strings.Fields(line), " ")] = true
	}
	var lines []string
	for line := range strings.Lines(b) {
		if !known[strings.Join(strings.Fields(line), " ")] {
			lines = append(lines, strings.TrimRight(line, " \n"))
		}
	}
	return strings.Join(lines, "\n")
}

// brief leaves out the list of processes, which are this machine's, but for its sum.
func brief(report string) string {
	var b strings.Builder
	for line := range strings.Lines(report) {
		f := strings.Fields(line)
		if len(f) > 1 && (f[0] == "PID" || number.MatchString(f[0]) && f[1] != "seen,") {
			continue
		}
		b.WriteString(line)
	}
	return strings.TrimRight(b.String(), "\n")
}

var number = regexp.MustCompile(`^[0-9]+$`)

func indent(s string) string { return "    " + strings.ReplaceAll(s, "\n", "\n    ") }
