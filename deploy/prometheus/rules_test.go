// Package prometheus_test holds the rules against promtool and against the measures
// that there are.
package prometheus_test

import (
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"

	"github.com/tollwire/tollwire/pricing"
)

// promtool runs Debian's promtool, which make setup installs.
func promtool(t *testing.T, args ...string) {
	t.Helper()
	tool, err := exec.LookPath("promtool")
	if err != nil {
		t.Skip("promtool is not installed (Debian: prometheus)")
	}
	run(t, tool, args...)
}

func run(t *testing.T, tool string, args ...string) {
	t.Helper()
	// What promtool reads is read here as well, so that go test knows when it changed.
	var files []string
	for _, glob := range []string{"*.yml", "testdata/*.yml"} {
		found, err := filepath.Glob(glob)
		if err != nil {
			t.Fatal(err)
		}
		files = append(files, found...)
	}
	for _, f := range files {
		if _, err := os.ReadFile(f); err != nil {
			t.Fatal(err)
		}
	}
	if out, err := exec.Command(tool, args...).CombinedOutput(); err != nil {
		t.Errorf("%s %s: %v\n%s", tool, strings.Join(args, " "), err, out)
	}
}

func TestConfigAndRulesAreValid(t *testing.T) {
	promtool(t, "check", "config", "prometheus.yml")
	promtool(t, "check", "config", "../systemd/prometheus.yml")
}

func TestRules(t *testing.T) { promtool(t, "test", "rules", "testdata/rules_test.yml") }

// The same rules where native buckets are kept. PROMTOOL3 names the promtool of a
// Prometheus 3, which can make them up: make test-backends-full has one.
func TestRulesOnNativeBuckets(t *testing.T) {
	tool := os.Getenv("PROMTOOL3")
	if tool == "" {
		t.Skip("make test-backends-full runs it")
	}
	run(t, tool, "check", "config", "prometheus.yml")
	run(t, tool, "test", "rules", "testdata/rules_test.yml", "testdata/native_test.yml")
}

// Every alert has a test in which it fires, and in that test a time when nothing does.
func TestEveryAlertIsTested(t *testing.T) {
	alerts, err := os.ReadFile("alerts.yml")
	if err != nil {
		t.Fatal(err)
	}
	tests, err := os.ReadFile("testdata/rules_test.yml")
	if err != nil {
		t.Fatal(err)
	}
	var names []string
	for _, m := range regexp.MustCompile(`- alert: (\w+)`).FindAllSubmatch(alerts, -1) {
		names = append(names, string(m[1]))
		if !regexp.MustCompile(`alertname: ` + string(m[1]) + `\s+exp_alerts:\s+- exp_labels`).Match(tests) {
			t.Errorf("%s never fires in a test", m[1])
		}
		if !regexp.MustCompile(`alertname: ` + string(m[1]) + `, exp_alerts: \[\]`).Match(tests) {
			t.Errorf("%s is never silent in a test", m[1])
		}
	}
	if slices.Sort(names); len(slices.Compact(names)) < 12 {
		t.Errorf("%d alerts", len(names))
	}
}

// TollwireUnpriced fires for what a price book could give a price, and for no call that
// needs none; what states no usage needs another remedy.
func TestUnpricedIsAGap(t *testing.T) {
	source, err := os.ReadFile("../../pricing/price.go")
	if err != nil {
		t.Fatal(err)
	}
	var want []string
	reasons := regexp.MustCompile(`(?m)^\tReason\w+ += "(\w+)"`).FindAllSubmatch(source, -1)
	for _, m := range reasons {
		if r := string(m[1]); !pricing.Gap(r) || r == pricing.ReasonUsageMissing {
			want = append(want, r)
		}
	}
	slices.Sort(want)
	if len(reasons) < 13 || len(want) < 6 {
		t.Fatalf("%d reasons, of which %v are no gap", len(reasons), want)
	}
	alerts, err := os.ReadFile("alerts.yml")
	if err != nil {
		t.Fatal(err)
	}
	if matcher := `tollwire_unpriced_calls_total{reason!~"` + strings.Join(want, "|") + `"}`; !strings.Contains(string(alerts), matcher) {
		t.Errorf("alerts.yml does not ask for %s", matcher)
	}
}
