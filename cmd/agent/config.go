package main

import (
	"cmp"
	"errors"
	"fmt"
	"os"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/goccy/go-yaml"
	"github.com/goccy/go-yaml/ast"
	"github.com/goccy/go-yaml/parser"
	"github.com/spf13/cobra"
	"github.com/spf13/pflag"

	"github.com/tollwire/tollwire/account/budget"
	"github.com/tollwire/tollwire/attribution"
	"github.com/tollwire/tollwire/probes"
)

// Config is the whole of the agent's configuration. Each value comes from its
// default, the YAML file, the environment or a flag, the later winning.
type Config struct {
	Log         LogConfig          `yaml:"log"`
	KeyFile     string             `yaml:"key_file"` // keys the hashes of ids and credentials; empty: a random key, other at each start
	Capture     CaptureConfig      `yaml:"capture"`
	Decode      DecodeConfig       `yaml:"decode"`
	Attribution attribution.Config `yaml:"attribution"`
	Kubernetes  KubernetesConfig   `yaml:"kubernetes"`
	Pricing     PricingConfig      `yaml:"pricing"`
	Export      ExportConfig       `yaml:"export"`
}

// LogConfig is what the agent says about itself, on stderr.
type LogConfig struct {
	Level  string `yaml:"level"`  // debug, info, warn, error
	Format string `yaml:"format"` // text, json
}

// CaptureConfig is what crosses from the kernel.
type CaptureConfig struct {
	Sockets   string `yaml:"sockets"`    // auto, fentry, kprobe, tracepoint, off
	Rings     int    `yaml:"rings"`      // decoders that run side by side; 0: one a CPU, at most 4
	RingBytes Size   `yaml:"ring_bytes"` // of each ring
	BodyLimit Size   `yaml:"body_limit"` // of one message's body, streams apart
}

// messageLimit is how many bytes of a message cross: the limit is the body's.
func (c *CaptureConfig) messageLimit() int64 { return int64(c.BodyLimit) + probes.HeadRoom }

// DecodeConfig is what is read out of the bytes.
type DecodeConfig struct {
	AllowHeaders   []string      `yaml:"allow_headers"`   // request headers that evidence rules may read
	QualitySignals bool          `yaml:"quality_signals"` // look whether JSON asked for is JSON
	Estimate       bool          `yaml:"estimate"`        // count tokens where no usage is stated
	IdleTimeout    time.Duration `yaml:"idle_timeout"`    // a call without a byte for so long is over
	OpenBytes      Size          `yaml:"open_bytes"`      // that calls may hold whose answer has not ended, all rings together
	Queue          int           `yaml:"queue"`           // finished calls that may wait for the slow half
}

// KubernetesConfig is where pods are asked for.
type KubernetesConfig struct {
	Enabled    string `yaml:"enabled"`    // auto: in a cluster; yes; no
	Node       string `yaml:"node"`       // this node's name; empty: $NODE_NAME, else the host's
	Kubeconfig string `yaml:"kubeconfig"` // empty: the pod's service account
}

// PricingConfig is where prices come from.
type PricingConfig struct {
	Books   []string        `yaml:"books"`   // files laid over the book inside, the later winning; watched
	Budgets []budget.Budget `yaml:"budgets"` // limits on this node's spending
	State   string          `yaml:"state"`   // file in which spending is remembered across restarts; empty: not remembered
}

// Size is a number of bytes: "4MiB", "64KiB", "1000".
type Size int64

var units = []struct {
	suffix string
	n      int64
}{{"GiB", 1 << 30}, {"MiB", 1 << 20}, {"KiB", 1 << 10}, {"B", 1}}

// Set parses s.
func (z *Size) Set(s string) error {
	t, mul := strings.TrimSpace(s), int64(1)
	for _, u := range units {
		if rest, ok := strings.CutSuffix(t, u.suffix); ok {
			t, mul = strings.TrimSpace(rest), u.n
			break
		}
	}
	n, err := strconv.ParseInt(t, 10, 64)
	if err != nil || n < 0 || n > (1<<62)/mul {
		return fmt.Errorf("size %q: want a number of bytes such as 4MiB, 64KiB or 1000", s)
	}
	*z = Size(n * mul)
	return nil
}

func (z Size) String() string {
	for _, u := range units {
		if z != 0 && int64(z)%u.n == 0 && u.n > 1 {
			return fmt.Sprintf("%d%s", int64(z)/u.n, u.suffix)
		}
	}
	return strconv.FormatInt(int64(z), 10)
}

// Type is the name that --help shows.
func (Size) Type() string { return "size" }

// UnmarshalYAML reads "4MiB" and 4194304 alike.
func (z *Size) UnmarshalYAML(n ast.Node) error {
	if err := z.Set(n.GetToken().Value); err != nil {
		return &yaml.SyntaxError{Message: err.Error(), Token: n.GetToken()}
	}
	return nil
}

func defaults() *Config {
	return &Config{
		Log:     LogConfig{Level: "info", Format: "text"},
		Capture: CaptureConfig{Sockets: "auto", RingBytes: 8 << 20, BodyLimit: 4 << 20},
		Decode: DecodeConfig{
			QualitySignals: true, Estimate: true, IdleTimeout: 10 * time.Minute, OpenBytes: 128 << 20, Queue: 8192,
		},
		Attribution: attribution.Defaults(),
		Kubernetes:  KubernetesConfig{Enabled: "auto"},
		Export:      defaultExport(),
	}
}

// flags ties c's most wanted values to flags. The same set reads the environment:
// --body-limit is TOLLWIRE_BODY_LIMIT.
func (c *Config) flags(fs *pflag.FlagSet) {
	fs.StringVar(&c.Log.Level, "log-level", c.Log.Level, "debug, info, warn or error")
	fs.StringVar(&c.Log.Format, "log-format", c.Log.Format, "text or json")
	fs.StringVar(&c.Capture.Sockets, "sockets", c.Capture.Sockets, "how plaintext sockets are read: auto, fentry, kprobe, tracepoint or off")
	fs.IntVar(&c.Capture.Rings, "rings", c.Capture.Rings, "rings and decoders side by side (0: one a CPU, at most 4)")
	fs.Var(&c.Capture.RingBytes, "ring-bytes", "size of each ring, a power of two")
	fs.Var(&c.Capture.BodyLimit, "body-limit", "bytes of one body that are read at most, but for streams and HTTP/2")
	fs.StringArrayVar(&c.Pricing.Books, "prices", c.Pricing.Books, "price book laid over the one inside (repeatable)")
	fs.StringVar(&c.Export.Listen, "listen", c.Export.Listen, "address of /metrics; empty: none")
	fs.StringVar(&c.Export.OTLP.Endpoint, "otlp-endpoint", c.Export.OTLP.Endpoint, "where spans and metrics go: grpc://HOST:4317, grpcs://…, http://HOST:4318, https://…; empty: nowhere")
	fs.StringVar(&c.Export.Records.Path, "records", c.Export.Records.Path, "file for one JSON line a call; - for stdout; empty: none")
}

// configPath is where cmd's YAML file is, or "".
func configPath(cmd *cobra.Command) string {
	path, _ := cmd.Flags().GetString("config")
	return cmp.Or(path, os.Getenv("TOLLWIRE_CONFIG"))
}

// loadConfig makes the configuration of cmd: defaults, then the file, then
// the environment, then flags.
func loadConfig(cmd *cobra.Command) (*Config, error) {
	c := defaults()
	path := configPath(cmd)
	if path != "" {
		if err := c.readFile(path); err != nil {
			return nil, err
		}
	}
	fs := pflag.NewFlagSet("", pflag.ContinueOnError)
	c.flags(fs)
	var errs []error
	fs.VisitAll(func(f *pflag.Flag) {
		if given := cmd.Flags().Lookup(f.Name); given != nil && given.Changed {
			f.Changed = true
			if sv, ok := given.Value.(pflag.SliceValue); ok {
				errs = append(errs, f.Value.(pflag.SliceValue).Replace(sv.GetSlice()))
				return
			}
			errs = append(errs, f.Value.Set(given.Value.String()))
			return
		}
		name := "TOLLWIRE_" + strings.ToUpper(strings.ReplaceAll(f.Name, "-", "_"))
		if v, ok := os.LookupEnv(name); ok {
			if err := f.Value.Set(v); err != nil {
				errs = append(errs, fmt.Errorf("%s: %w", name, err))
			}
		}
	})
	errs = append(errs, unknownEnvironment(fs))
	for _, bad := range c.validate() {
		errs = append(errs, bad.in(path))
	}
	return c, errors.Join(errs...)
}

// invalid is a value that the agent cannot work with.
type invalid struct {
	key  string // its path in the file: capture.sockets
	want string // what was found and what was expected
}

// in says where in the file the value stands; a value that came from a flag, the
// environment or a default has no line.
func (v invalid) in(path string) error {
	if path != "" {
		if source, err := os.ReadFile(path); err == nil {
			if file, err := parser.ParseBytes(source, 0); err == nil {
				if at, err := yaml.PathString("$." + v.key); err == nil {
					if node, err := at.FilterFile(file); err == nil && node != nil {
						return fmt.Errorf("%s:%d: %s %s", path, node.GetToken().Position.Line, v.key, v.want)
					}
				}
			}
		}
	}
	return fmt.Errorf("%s %s", v.key, v.want)
}

// serviceLink is a variable that the kubelet sets for a Service named tollwire or
// tollwire-…: kubernetes/pkg/kubelet/envvars.
var serviceLink = regexp.MustCompile(`^TOLLWIRE_([A-Z0-9_]+_)?(SERVICE_HOST|SERVICE_PORT(_[A-Z0-9_]+)?|PORT(_[0-9]+_(TCP|UDP|SCTP)(_(PROTO|PORT|ADDR))?)?)$`)

// unknownEnvironment refuses a TOLLWIRE_ variable that sets nothing: a typing
// error must not pass for a setting.
func unknownEnvironment(fs *pflag.FlagSet) error {
	known := map[string]bool{"TOLLWIRE_CONFIG": true, "TOLLWIRE_CACHE": true}
	fs.VisitAll(func(f *pflag.Flag) {
		known["TOLLWIRE_"+strings.ToUpper(strings.ReplaceAll(f.Name, "-", "_"))] = true
	})
	var errs []error
	for _, kv := range os.Environ() {
		if name, _, _ := strings.Cut(kv, "="); strings.HasPrefix(name, "TOLLWIRE_") && !known[name] && !serviceLink.MatchString(name) {
			errs = append(errs, fmt.Errorf("environment: %s is no setting; see tollwire run --help", name))
		}
	}
	return errors.Join(errs...)
}

// readFile lays the YAML file at path over c; one that says nothing changes nothing.
// Unknown keys and bad values are refused with their line.
func (c *Config) readFile(path string) error {
	source, err := os.ReadFile(path)
	if err != nil {
		return fmt.Errorf("open config: %w", err)
	}
	file, err := parser.ParseBytes(source, 0)
	if err == nil {
		for _, doc := range file.Docs {
			if doc.Body != nil && doc.Body.Type() != ast.NullType && err == nil {
				err = yaml.NodeToValue(doc.Body, c, yaml.Strict())
			}
		}
	}
	if err != nil {
		return fmt.Errorf("config %s:\n%s", path, yaml.FormatError(err, false, true))
	}
	return nil
}

// validate returns every value that the agent cannot work with.
func (c *Config) validate() []invalid {
	var all []invalid
	bad := func(key, format string, a ...any) { all = append(all, invalid{key, fmt.Sprintf(format, a...)}) }
	switch c.Capture.Sockets {
	case "auto", "fentry", "kprobe", "tracepoint", "off":
	default:
		bad("capture.sockets", "is %q: want auto, fentry, kprobe, tracepoint or off", c.Capture.Sockets)
	}
	if c.Capture.Rings < 0 || c.Capture.Rings > 64 {
		bad("capture.rings", "is %d: want 0 to 64", c.Capture.Rings)
	}
	if n := c.Capture.RingBytes; n < 64<<10 || n > 1<<30 || n&(n-1) != 0 {
		bad("capture.ring_bytes", "is %v: want a power of two from 64KiB to 1GiB", n)
	}
	if n := c.Capture.BodyLimit; n < 16<<10 || n > 1<<30 {
		bad("capture.body_limit", "is %v: want 16KiB to 1GiB", n)
	}
	if c.Decode.Queue < 1 || c.Decode.Queue > 1<<20 {
		bad("decode.queue", "is %d: want 1 to 1048576", c.Decode.Queue)
	}
	if n := c.Decode.OpenBytes; n < 16<<20 || n > 64<<30 {
		bad("decode.open_bytes", "is %v: want 16MiB to 64GiB", n)
	}
	if c.Decode.IdleTimeout < time.Second {
		bad("decode.idle_timeout", "is %v: want at least 1s", c.Decode.IdleTimeout)
	}
	for i, name := range c.Decode.AllowHeaders {
		if why := attribution.BadHeader(name); why != "" {
			bad(fmt.Sprintf("decode.allow_headers[%d]", i), "is %q: %s", name, why)
		}
	}
	if !slices.Contains([]string{"auto", "yes", "no"}, c.Kubernetes.Enabled) {
		bad("kubernetes.enabled", "is %q: want auto, yes or no", c.Kubernetes.Enabled)
	}
	if _, err := c.Log.logger(); err != nil {
		bad("log", "is wrong: %v", err)
	}
	for _, v := range c.Attribution.Validate() {
		all = append(all, invalid{"attribution." + v.Key, v.Want})
	}
	return append(all, c.Export.validate()...)
}
