package main

import (
	"fmt"
	"log/slog"
	"maps"
	"os"
	"slices"
	"strings"
	"time"

	"golang.org/x/net/http/httpguts"

	"github.com/tollwire/tollwire/export/metric"
	"github.com/tollwire/tollwire/export/otlp"
)

// OTLPConfig is an OpenTelemetry collector, or what else speaks OTLP.
type OTLPConfig struct {
	Endpoint    string            `yaml:"endpoint"`     // grpc://HOST:4317, grpcs://…, http://HOST:4318, https://…; empty: none
	Headers     map[string]string `yaml:"headers"`      // sent with every request
	HeaderFiles map[string]string `yaml:"header_files"` // the same with each value in a file, read at the start
	TLS         TLSConfig         `yaml:"tls"`
	Compression string            `yaml:"compression"` // gzip, none
	Timeout     time.Duration     `yaml:"timeout"`     // of one request
	Queue       QueueConfig       `yaml:"queue"`
	Traces      bool              `yaml:"traces"`
	Metrics     bool              `yaml:"metrics"`
	Interval    time.Duration     `yaml:"interval"` // between snapshots of the metrics
	Sampling    SamplingConfig    `yaml:"sampling"`
	Langfuse    bool              `yaml:"langfuse"` // add the attributes that Langfuse reads
	Resource    map[string]string `yaml:"resource"` // attributes of this node
}

// TLSConfig names files in PEM.
type TLSConfig struct {
	CA         string `yaml:"ca"`   // empty: the system's roots
	Cert       string `yaml:"cert"` // the client's, for mutual TLS
	Key        string `yaml:"key"`
	ServerName string `yaml:"server_name"` // empty: the endpoint's
}

// QueueConfig is where waits what could not be sent yet.
type QueueConfig struct {
	Dir      string `yaml:"dir"`
	MaxBytes Size   `yaml:"max_bytes"` // for spans and for metrics each
}

// SamplingConfig says which calls become spans; failed ones always do.
type SamplingConfig struct {
	Ratio float64             `yaml:"ratio"`    // of the traces, 0 to 1
	Slow  time.Duration       `yaml:"slow"`     // calls that took so long are kept; 0: no such rule
	Cost  float64             `yaml:"cost_usd"` // calls that cost so much are kept; 0: no such rule
	Keep  map[string][]string `yaml:"keep"`     // calls with these attributes are kept; an empty list is any value
}

// minQueue is two of the queue's files.
const minQueue Size = 8 << 20

func defaultOTLP() OTLPConfig {
	return OTLPConfig{
		Compression: "gzip", Timeout: 10 * time.Second,
		Queue:  QueueConfig{Dir: "/var/lib/tollwire/otlp", MaxBytes: 256 << 20},
		Traces: true, Metrics: true, Interval: 15 * time.Second,
		Sampling: SamplingConfig{Ratio: 1},
	}
}

func (c *OTLPConfig) validate() []invalid {
	var all []invalid
	bad := func(key, format string, a ...any) {
		all = append(all, invalid{"export.otlp." + key, fmt.Sprintf(format, a...)})
	}
	if c.Endpoint != "" {
		if _, err := otlp.ParseEndpoint(c.Endpoint); err != nil {
			bad("endpoint", "%v", err)
		}
		if c.Queue.Dir == "" {
			bad("queue.dir", "is empty: want a folder")
		}
	}
	for _, name := range slices.Sorted(maps.Keys(c.Headers)) {
		if !httpguts.ValidHeaderFieldName(name) {
			bad("headers", "has %q: want the name of a header", name)
		} else if !httpguts.ValidHeaderFieldValue(c.Headers[name]) {
			bad("headers", "has a value of %s that no header can have", name)
		}
	}
	for _, name := range slices.Sorted(maps.Keys(c.HeaderFiles)) {
		if !httpguts.ValidHeaderFieldName(name) {
			bad("header_files", "has %q: want the name of a header", name)
		}
	}
	if (c.TLS.Cert == "") != (c.TLS.Key == "") {
		bad("tls", "has one of cert and key: want both or none")
	}
	if !slices.Contains([]string{"gzip", "none"}, c.Compression) {
		bad("compression", "is %q: want gzip or none", c.Compression)
	}
	if c.Timeout < 100*time.Millisecond {
		bad("timeout", "is %v: want at least 100ms", c.Timeout)
	}
	if c.Interval < 100*time.Millisecond {
		bad("interval", "is %v: want at least 100ms", c.Interval)
	}
	if c.Queue.MaxBytes < minQueue {
		bad("queue.max_bytes", "is %v: want at least %v", c.Queue.MaxBytes, minQueue)
	}
	if r := c.Sampling.Ratio; !(r >= 0 && r <= 1) {
		bad("sampling.ratio", "is %v: want 0 to 1", r)
	}
	if c.Sampling.Slow < 0 {
		bad("sampling.slow", "is %v: want 0s or longer", c.Sampling.Slow)
	}
	if !(c.Sampling.Cost >= 0) {
		bad("sampling.cost_usd", "is %v: want 0 or more", c.Sampling.Cost)
	}
	return all
}

// open begins to send what an earlier agent left in the queue.
func (c *OTLPConfig) open(set *metric.Set, log *slog.Logger) (*otlp.Exporter, error) {
	headers, err := c.headers()
	if err != nil {
		return nil, err
	}
	if !c.Metrics {
		set = nil
	}
	// Spans belong to the programs' services: of the agent's own attributes only those
	// of the machine stand beside them.
	resource := maps.Clone(c.Resource)
	if resource == nil {
		resource = make(map[string]string)
	}
	for k, v := range target() {
		if _, given := resource[k]; !given && strings.HasPrefix(k, "host.") {
			resource[k] = v
		}
	}
	return otlp.New(otlp.Config{
		Endpoint: c.Endpoint, Headers: headers, Compression: c.Compression, Timeout: c.Timeout,
		TLS: otlp.TLS{CA: c.TLS.CA, Cert: c.TLS.Cert, Key: c.TLS.Key, ServerName: c.TLS.ServerName},
		Dir: c.Queue.Dir, QueueBytes: int64(c.Queue.MaxBytes),
		Traces: c.Traces, Metrics: set, Interval: c.Interval, Langfuse: c.Langfuse,
		Sampling: otlp.Sampling{Ratio: c.Sampling.Ratio, Slow: c.Sampling.Slow, Cost: c.Sampling.Cost, Keep: c.Sampling.Keep},
		Resource: resource, Version: version, Logger: log,
	})
}

func (c *OTLPConfig) headers() (map[string]string, error) {
	all := make(map[string]string, len(c.Headers)+len(c.HeaderFiles))
	maps.Copy(all, c.Headers)
	for name, path := range c.HeaderFiles {
		b, err := os.ReadFile(path)
		if err != nil {
			return nil, fmt.Errorf("header_files: %s: %w", name, err)
		}
		value := strings.TrimSpace(string(b))
		if !httpguts.ValidHeaderFieldValue(value) {
			return nil, fmt.Errorf("header_files: %s: %s holds what no header can have", name, path)
		}
		all[name] = value
	}
	return all, nil
}
