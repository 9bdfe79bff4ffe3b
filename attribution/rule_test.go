package attribution

import (
	"strings"
	"testing"
)

func TestPatterns(t *testing.T) {
	for _, c := range []struct {
		pattern, value string
		want           bool
	}{
		{"python3*", "python3.11", true},
		{"python3", "python3.11", false},
		{"*", "", true},
		{"a?c", "abc", true},
		{"a?c", "ac", false},
		{"*/bin/*", "/usr/bin/curl", true},
		{"a.c", "abc", false},
		{"a*\nb", "ax\nb", true},
		{"re:^/opt/", "/opt/x", true},
		{"re:opt", "/opt/x", true},
		{"re:^opt", "/opt/x", false},
		{strings.Repeat("a*", 50), strings.Repeat("a", 4000) + "b", true},
	} {
		p, err := compilePattern(c.pattern)
		if err != nil {
			t.Fatal(err)
		}
		if got := p.match(c.value, map[string]string{}); got != c.want {
			t.Errorf("%q matches %.20q: %v, want %v", c.pattern, c.value, got, c.want)
		}
	}
}

func TestRules(t *testing.T) {
	known := map[string]string{
		"exe": "/usr/bin/python3.11", "command": "python3 run.py --role=planner --x",
		"unit": "agent@research.service", "cgroup": "/system.slice/agent@research.service",
		"header.x-agent": "critic",
	}
	value := func(k string) string { return known[k] }
	for _, c := range []struct {
		name        string
		rule        Rule
		graph, node string
		matches     bool
	}{
		{"base name", Rule{Match: Match{Exe: "python3*"}, Node: "py"}, "", "py", true},
		{"whole path", Rule{Match: Match{Exe: "/usr/bin/*"}, Node: "py"}, "", "py", true},
		{"base name is not the path", Rule{Match: Match{Exe: "bin"}, Node: "py"}, "", "", false},
		{"expression sees the path", Rule{Match: Match{Exe: "re:^/usr/"}, Node: "py"}, "", "py", true},
		{"all must hold", Rule{Match: Match{Exe: "python3*", Unit: "cron.service"}, Node: "py"}, "", "", false},
		{"named group", Rule{Match: Match{Command: `re:--role[ =](?P<role>\w+)`}, Graph: "g", Node: "n-{role}"}, "g", "n-planner", true},
		{"two groups", Rule{Match: Match{Unit: `re:@(?P<u>.*)\.service`, Command: `re:--role=(?P<r>\w+)`}, Graph: "{u}", Node: "{r}"}, "research", "planner", true},
		{"template", Rule{Match: Match{Cgroup: "/system.slice/*"}, Node: "{unit}"}, "", "agent@research.service", true},
		{"template without value", Rule{Match: Match{Exe: "*"}, Node: "{pod}"}, "", "", false},
		{"optional group without value", Rule{Match: Match{Command: `re:run(?P<x>zzz)?`}, Node: "{x}"}, "", "", false},
		{"header", Rule{Match: Match{Header: map[string]string{"X-Agent": "crit*"}}, Node: "{header.x-agent}"}, "", "critic", true},
		{"header missing", Rule{Match: Match{Header: map[string]string{"x-other": "*"}}, Node: "n"}, "", "", false},
		{"graph alone", Rule{Match: Match{Exe: "*"}, Graph: "g"}, "g", "", true},
	} {
		t.Run(c.name, func(t *testing.T) {
			c.rule.Name = "r"
			r, bad := compileRule(&c.rule)
			if len(bad) > 0 {
				t.Fatal(bad)
			}
			holds := func(c *condition, vars map[string]string) bool {
				return value(c.key) != "" && c.match(value(c.key), vars)
			}
			graph, node, ok := r.match(holds, value)
			if ok != c.matches || ok && (graph != c.graph || node != c.node) {
				t.Errorf("got %q, %q, %v", graph, node, ok)
			}
		})
	}
}

func TestValidate(t *testing.T) {
	ok := Defaults()
	ok.Tenant.From = []string{"label:team", "header:X-Tenant", "namespace", "api_key"}
	ok.Rules = []Rule{{Name: "a", Match: Match{Exe: "x"}, Node: "n"}}
	if bad := ok.Validate(); len(bad) > 0 {
		t.Fatalf("defaults: %v", bad)
	}
	for _, c := range []struct {
		change    func(*Config)
		key, want string
	}{
		{func(c *Config) { c.Order = []string{"header", "labels"} }, "order[1]", "want one of header"},
		{func(c *Config) { c.Order = []string{"rule", "rule"} }, "order[1]", "second time"},
		{func(c *Config) { c.Node.Label = "a b" }, "node.label", "tollwire.io/node"},
		{func(c *Config) { c.Graph.Header = []string{"x", "Authorization"} }, "graph.header[1]", "credential"},
		{func(c *Config) { c.Node.Default = "{nope}" }, "node.default", "{exe}"},
		{func(c *Config) { c.Node.Default = "a}" }, "node.default", "without a {"},
		{func(c *Config) { c.Tenant.From = []string{"user"} }, "tenant.from[0]", "want namespace"},
		{func(c *Config) { c.Tenant.From = []string{"api_key", "label:"} }, "tenant.from[1]", "label:KEY"},
		{func(c *Config) { c.Tenant.Values = -1 }, "tenant.values", "want 0"},
		{func(c *Config) { c.PodLabels = []string{"/x"} }, "pod_labels[0]", "label's key"},
		{func(c *Config) { c.Baggage = []string{"a", "b=c"} }, "baggage[1]", "key of W3C baggage"},
		{func(c *Config) { c.Wait = -1 }, "wait", "0s to 10m"},
		{func(c *Config) { c.Rules[0].Name = "" }, "rules[0].name", "want a name"},
		{func(c *Config) { c.Rules = append(c.Rules, c.Rules[0]) }, "rules[1].name", "rules[0]"},
		{func(c *Config) { c.Rules[0].Match = Match{} }, "rules[0].match", "at least one of"},
		{func(c *Config) { c.Rules[0].Match.Exe = "re:(" }, "rules[0].match.exe", "regular expression"},
		{func(c *Config) { c.Rules[0].Node = "" }, "rules[0].node", "at least one"},
		{func(c *Config) { c.Rules[0].Node = "{role" }, "rules[0].node", "without a }"},
		{func(c *Config) { c.Rules[0].Graph = "{role}" }, "rules[0].graph", "named group"},
		{func(c *Config) { c.Rules[0].Match.Header = map[string]string{"cookie": "*"} }, "rules[0].match.header", "credential"},
		{func(c *Config) { c.Rules[0].Match.Header = map[string]string{"x-a": ""} }, "rules[0].match.header.x-a", "want a pattern"},
	} {
		cfg := ok
		cfg.Rules = append([]Rule(nil), ok.Rules...)
		c.change(&cfg)
		bad := cfg.Validate()
		if len(bad) != 1 || bad[0].Key != c.key || !strings.Contains(bad[0].Want, c.want) {
			t.Errorf("got %v, want %s: …%s…", bad, c.key, c.want)
		}
		if _, err := New(cfg); err == nil {
			t.Errorf("New took %s", c.key)
		}
	}
}

func FuzzTemplate(f *testing.F) {
	f.Add("a{exe}b{header.x}")
	f.Add("{{}}")
	f.Fuzz(func(t *testing.T, s string) {
		tmpl, err := parseTemplate(s, func(n string) bool { return n == "header.x" })
		if err != nil {
			return
		}
		if got, ok := tmpl.expand(func(n string) string { return "{" + n + "}" }); !ok || len(tmpl) > 1 && got != clean(s, maxName) {
			t.Errorf("%q became %q", s, got)
		}
	})
}

func FuzzPattern(f *testing.F) {
	f.Add("python3*", "python3.11")
	f.Add("re:(?P<a>x)", "x")
	f.Fuzz(func(t *testing.T, pattern, value string) {
		p, err := compilePattern(pattern)
		if err != nil {
			return
		}
		p.match(value, map[string]string{})
		if !strings.ContainsAny(pattern, "*?") && !strings.HasPrefix(pattern, "re:") && !p.match(pattern, nil) {
			t.Errorf("%q does not match itself", pattern)
		}
	})
}
