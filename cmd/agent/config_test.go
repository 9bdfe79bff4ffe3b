package main

import (
	"os"
	"path/filepath"
	"reflect"
	"regexp"
	"strings"
	"testing"

	"github.com/spf13/cobra"

	"github.com/tollwire/tollwire/decoder/exchange"
)

// load runs loadConfig as a command would, with the file's content and flags.
func load(t *testing.T, content string, args ...string) (*Config, error) {
	t.Helper()
	path := filepath.Join(t.TempDir(), "tollwire.yaml")
	if err := os.WriteFile(path, []byte(content), 0o600); err != nil {
		t.Fatal(err)
	}
	cmd := &cobra.Command{}
	cmd.Flags().String("config", "", "")
	defaults().flags(cmd.Flags())
	if err := cmd.ParseFlags(append(args, "--config", path)); err != nil {
		t.Fatal(err)
	}
	return loadConfig(cmd)
}

// TestShippedConfigurations: what deploy/ hands to the agent is what it takes.
func TestShippedConfigurations(t *testing.T) {
	b, err := os.ReadFile("../../deploy/systemd/tollwire.yaml")
	if err != nil {
		t.Fatal(err)
	}
	shipped := map[string]string{"systemd": string(b)}
	for name, file := range map[string]string{"daemonset": "daemonset/configmap.yaml", "cluster test": "../test/cluster/daemonset/kustomization.yaml"} {
		b, err := os.ReadFile(filepath.Join("../../deploy", file))
		if err != nil {
			t.Fatal(err)
		}
		// The block after the last of these keys, to the end of the file.
		block := regexp.MustCompile(`(?s).*\n *(?:config\.yaml|value): \|\n( +)(.*)`).FindSubmatch(b)
		if block == nil {
			t.Fatalf("%s: no configuration found", file)
		}
		shipped[name] = strings.ReplaceAll("\n"+string(block[1])+string(block[2]), "\n"+string(block[1]), "\n")
	}
	for name, text := range shipped {
		c, err := load(t, text)
		if err != nil || !strings.HasSuffix(c.Export.Listen, ":9464") {
			t.Errorf("%s: %v in:\n%s", name, err, text)
		}
	}
}

// TestDocumentedDefaults holds docs/configuration.md to the code: every key is
// there, and its value is the default.
func TestDocumentedDefaults(t *testing.T) {
	page, err := os.ReadFile("../../docs/configuration.md")
	if err != nil {
		t.Fatal(err)
	}
	_, rest, _ := strings.Cut(string(page), "```yaml\n")
	block, _, ok := strings.Cut(rest, "```")
	if !ok {
		t.Fatal("no yaml on the page")
	}
	got, err := load(t, block)
	if err != nil {
		t.Fatal(err)
	}
	want := defaults()
	if !reflect.DeepEqual(normal(reflect.ValueOf(got)), normal(reflect.ValueOf(want))) {
		t.Errorf("the page says %+v\nthe code %+v", got, want)
	}
	for _, key := range keys(reflect.TypeFor[Config](), "") {
		last := key[strings.LastIndexByte(key, '.')+1:]
		if !regexp.MustCompile(`(?m)^ *` + last + `:`).MatchString(block) {
			t.Errorf("%s is not on the page", key)
		}
	}
}

// normal is v with empty lists and maps as nil, for comparison.
func normal(v reflect.Value) any {
	switch v.Kind() {
	case reflect.Pointer:
		return normal(v.Elem())
	case reflect.Struct:
		m := map[string]any{}
		for i := range v.NumField() {
			if f := v.Type().Field(i); f.IsExported() && f.Tag.Get("yaml") != "-" {
				m[f.Name] = normal(v.Field(i))
			}
		}
		return m
	case reflect.Slice, reflect.Map:
		if v.Len() == 0 {
			return nil
		}
	}
	return v.Interface()
}

// keys lists the YAML keys of a struct that hold values.
func keys(t reflect.Type, prefix string) (all []string) {
	for i := range t.NumField() {
		f := t.Field(i)
		name, _, _ := strings.Cut(f.Tag.Get("yaml"), ",")
		switch {
		case name == "-" || name == "":
		case f.Type.Kind() == reflect.Struct:
			all = append(all, keys(f.Type, prefix+name+".")...)
		default:
			all = append(all, prefix+name)
		}
	}
	return all
}

func TestLaterWins(t *testing.T) {
	t.Setenv("TOLLWIRE_LOG_LEVEL", "warn")
	t.Setenv("TOLLWIRE_RINGS", "2")
	c, err := load(t, "log: {level: error}\ncapture: {rings: 3, body_limit: 1MiB}\n", "--rings", "4", "--prices", "a.yaml", "--prices", "b,c.yaml")
	if err != nil {
		t.Fatal(err)
	}
	if c.Log.Level != "warn" || c.Capture.Rings != 4 || c.Capture.BodyLimit != 1<<20 || c.Log.Format != "text" {
		t.Errorf("%+v", c)
	}
	if !reflect.DeepEqual(c.Pricing.Books, []string{"a.yaml", "b,c.yaml"}) {
		t.Errorf("books %q", c.Pricing.Books)
	}
}

// TestFileThatSaysNothing: the defaults stand.
func TestFileThatSaysNothing(t *testing.T) {
	for _, content := range []string{"", "# capture: {rings: 3}\n", "---\n", "null\n", "{}\n", "capture:\n"} {
		c, err := load(t, content)
		if err != nil || !reflect.DeepEqual(normal(reflect.ValueOf(c)), normal(reflect.ValueOf(defaults()))) {
			t.Errorf("%q: %+v, %v", content, c, err)
		}
	}
}

// TestBadValuesNameTheirLine: whatever is wrong is refused, with the line it stands
// on and what was expected.
func TestBadValuesNameTheirLine(t *testing.T) {
	for _, c := range []struct{ content, line, want string }{
		{"log:\n  levle: info\n", "2:", "levle"},
		{"capture:\n  rings: many\n", "2:", "rings"},
		{"capture:\n  body_limit: 4 pounds\n", "2:", "4MiB"},
		{"capture:\n  rings: 1\n  sockets: best\n", ":3:", "tracepoint"},
		{"capture:\n  ring_bytes: 3MiB\n", ":2:", "power of two"},
		{"decode:\n  open_bytes: 1MiB\n", ":2:", "16MiB"},
		{"decode:\n  idle_timeout: 1ms\n", ":2:", "at least 1s"},
		{"decode:\n  allow_headers:\n    - x-job\n    - Authorization\n", ":4:", "credential"},
		{"decode:\n  allow_headers: [\"not a header\"]\n", ":2:", "name of a header"},
		{"export:\n  metrics:\n    idle: -1h\n", ":3:", "at least 1s"},
		{"export:\n  records:\n    max_age: -1h\n", ":3:", "at least 1s"},
		{"export:\n  records:\n    keep: -1\n", ":3:", "0 or more"},
		{"export:\n  otlp:\n    headers:\n      not a header: x\n", ":4:", "name of a header"},
		{"export:\n  otlp:\n    headers:\n      x-token: \"a\\nb\"\n", ":4:", "x-token"},
		{"export:\n  otlp:\n    header_files:\n      \"a:b\": x\n", ":4:", "name of a header"},
		{"attribution:\n  rules:\n    - name: a\n      node: b\n      match: {exe: \"re:(\"}\n", ":5:", "exe"},
		{"export:\n  records:\n    sync: maybe\n", ":3:", "interval"},
		{"export:\n  otlp:\n    endpoint: collector:4317\n", ":3:", "grpc://"},
		{"export:\n  otlp:\n    endpoint: https://user:s3cret@c\n", ":3:", "header_files"},
		{"export:\n  otlp:\n    endpoint: grpc://c:4317\n    compression: zip\n", ":4:", "gzip"},
		{"export:\n  otlp:\n    tls:\n      cert: a.pem\n", ":4:", "key"},
		{"export:\n  otlp:\n    sampling:\n      ratio: 2\n", ":4:", "0 to 1"},
		{"export:\n  otlp:\n    queue:\n      max_bytes: 1MiB\n", ":4:", "8MiB"},
	} {
		_, err := load(t, c.content)
		if err == nil {
			t.Errorf("%q was taken", c.content)
			continue
		}
		if strings.Contains(err.Error(), "s3cret") {
			t.Errorf("%q: error %q tells the password", c.content, err)
		}
		for _, want := range []string{c.line, c.want} {
			if !strings.Contains(err.Error(), want) {
				t.Errorf("%q: error %q does not say %q", c.content, err, want)
			}
		}
	}
}

func TestUnknownEnvironmentIsRefused(t *testing.T) {
	t.Setenv("TOLLWIRE_BODYLIMIT", "1MiB")
	if _, err := load(t, ""); err == nil || !strings.Contains(err.Error(), "TOLLWIRE_BODYLIMIT") {
		t.Errorf("error %v", err)
	}
}

// TestServiceLinks: a Service named tollwire, or one whose name begins so, keeps no
// agent of its namespace from starting.
func TestServiceLinks(t *testing.T) {
	for _, name := range []string{
		"SERVICE_HOST", "SERVICE_PORT", "SERVICE_PORT_METRICS", "PORT", "PORT_9464_TCP", "PORT_9464_TCP_PROTO", "PORT_9464_TCP_PORT", "PORT_9464_TCP_ADDR",
		"METRICS_SERVICE_HOST", "METRICS_SERVICE_PORT", "METRICS_PORT", "METRICS_PORT_53_UDP", "METRICS_PORT_53_UDP_ADDR", "RINGS_PORT",
	} {
		t.Setenv("TOLLWIRE_"+name, "tcp://10.0.0.1:9464")
	}
	if _, err := load(t, ""); err != nil {
		t.Error(err)
	}
	for _, name := range []string{"REPORT", "PORTS", "PORT_X", "SERVICE_NAME"} {
		t.Run(name, func(t *testing.T) {
			t.Setenv("TOLLWIRE_"+name, "x")
			if _, err := load(t, ""); err == nil {
				t.Error("taken")
			}
		})
	}
}

func FuzzSize(f *testing.F) {
	for _, s := range []string{"4MiB", "0", "1 KiB", "9223372036854775807GiB", "-1", "B"} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, s string) {
		var z, again Size
		if z.Set(s) != nil {
			return
		}
		if z < 0 {
			t.Fatalf("%q is %d", s, z)
		}
		if err := again.Set(z.String()); err != nil || again != z {
			t.Fatalf("%q is %v, read again %v, %v", s, z, again, err)
		}
	})
}

// TestEstimateSamples: prompts are sampled only where their tokens may be estimated.
func TestEstimateSamples(t *testing.T) {
	for _, estimate := range []bool{true, false} {
		c := defaults()
		c.Decode.Estimate = estimate
		var f exchange.Facts
		body := strings.NewReader(`{"model":"m","messages":[{"role":"user","content":"words"}]}`)
		if err := c.decoder(nil, nil, nil).ReadFacts(body, "application/json", &f); err != nil {
			t.Fatal(err)
		}
		if f.Text.Bytes != 5 || (len(f.Text.Kept) > 0) != estimate {
			t.Errorf("estimate %v: %+v", estimate, f.Text)
		}
	}
}
