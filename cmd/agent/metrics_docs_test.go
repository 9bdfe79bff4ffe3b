package main

import (
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"

	"github.com/tollwire/tollwire/export/metric"
)

// Where measures are named: with their kind and unit, as the sources spell it.
var namings = []struct {
	pattern string
	kind    metric.Kind
}{
	{`\bcount\("([^"]+)", "([^"]*)"`, metric.Counter},
	{`\bgauge\("([^"]+)", "([^"]*)"`, metric.Gauge},
	{`\bpoint\(metric\.Counter, "([^"]+)"()`, metric.Counter},
	{`\bpoint\(metric\.Gauge, "([^"]+)"()`, metric.Gauge},
	{`\bName: "([^"]+)",(?: Unit: "([^"]*)",)? Kind: (?:metric\.)?Counter`, metric.Counter},
	{`\bName: "([^"]+)",(?: Unit: "([^"]*)",)? Kind: (?:metric\.)?Gauge`, metric.Gauge},
	{`\bName: "([^"]+)",(?: Unit: "([^"]*)",)? Kind: (?:metric\.)?Distribution`, metric.Distribution},
}

// TestDocumentedMetrics holds docs/metrics.md to the code: every measure and label
// stands on the page, and no other measure does.
func TestDocumentedMetrics(t *testing.T) {
	b, err := os.ReadFile("../../docs/metrics.md")
	if err != nil {
		t.Fatal(err)
	}
	page := string(b)
	documented := map[string]bool{}
	for _, m := range regexp.MustCompile("(?m)^\\| `([^`]+)` \\|").FindAllStringSubmatch(page, -1) {
		documented[m[1]] = true
	}
	if !documented["target_info"] {
		t.Error("target_info is not in docs/metrics.md")
	}
	delete(documented, "target_info")
	var sources []string
	for _, glob := range []string{"*.go", "../../export/*/*.go"} {
		files, err := filepath.Glob(glob)
		if err != nil {
			t.Fatal(err)
		}
		sources = append(sources, files...)
	}
	named, labels := map[string]bool{}, map[string]bool{}
	for _, file := range sources {
		if strings.HasSuffix(file, "_test.go") {
			continue
		}
		source, err := os.ReadFile(file)
		if err != nil {
			t.Fatal(err)
		}
		for _, n := range namings {
			for _, m := range regexp.MustCompile(n.pattern).FindAllStringSubmatch(string(source), -1) {
				i := metric.Instrument{Name: m[1], Unit: m[2], Kind: n.kind}
				named[i.PromName()] = true
				if !regexp.MustCompile(`^(s|By|1|\{.+\})?$`).MatchString(i.Unit) {
					t.Errorf("%s: unit %q, which Prometheus' OTLP receiver would show in its name", i.Name, i.Unit)
				}
			}
		}
		for _, m := range regexp.MustCompile(`(?:\bAttr)?\{Key: "([^"]+)", Value: `).FindAllStringSubmatch(string(source), -1) {
			labels[metric.PromLabel(m[1])] = true
		}
	}
	if len(named) < 40 || len(labels) < 10 {
		t.Fatalf("%d measures and %d labels found in the sources", len(named), len(labels))
	}
	for name := range named {
		if !documented[name] {
			t.Errorf("%s is not in docs/metrics.md", name)
		}
	}
	for name := range documented {
		if !named[name] {
			t.Errorf("docs/metrics.md names %s, which nothing gives", name)
		}
	}
	for l := range labels {
		if !strings.Contains(page, "`"+l+"`") {
			t.Errorf("the label %s is not in docs/metrics.md", l)
		}
	}
}
