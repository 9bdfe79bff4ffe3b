package jsonl

import (
	"bytes"
	"encoding/json"
	"fmt"
	"strings"
	"time"
)

// Line is a record read back. A pointer is nil and a string empty where the line has
// no such key.
type Line struct {
	Time             time.Time          `json:"time"`
	Role             string             `json:"tollwire.role"`
	Provider         string             `json:"gen_ai.provider.name"`
	Operation        string             `json:"gen_ai.operation.name"`
	RequestModel     string             `json:"gen_ai.request.model"`
	ResponseModel    string             `json:"gen_ai.response.model"`
	ResponseID       string             `json:"gen_ai.response.id"`
	FinishReasons    []string           `json:"gen_ai.response.finish_reasons"`
	Stream           bool               `json:"gen_ai.request.stream"`
	API              string             `json:"tollwire.api"`
	ServerAddress    string             `json:"server.address"`
	ServerPort       int                `json:"server.port"`
	Status           int                `json:"http.response.status_code"`
	ErrorType        string             `json:"error.type"`
	ServiceTier      string             `json:"tollwire.service_tier"`
	ToolCalls        []string           `json:"tollwire.tool_calls"`
	Quality          []string           `json:"tollwire.quality"`
	MCPMethod        string             `json:"mcp.method.name"`
	Tool             string             `json:"gen_ai.tool.name"`
	RetryCount       int                `json:"http.request.resend_count"`
	RetryGroup       string             `json:"tollwire.retry.group"`
	InputTokens      *float64           `json:"gen_ai.usage.input_tokens"`
	OutputTokens     *float64           `json:"gen_ai.usage.output_tokens"`
	CacheReadTokens  *float64           `json:"gen_ai.usage.cache_read.input_tokens"`
	CacheWriteTokens *float64           `json:"gen_ai.usage.cache_creation.input_tokens"`
	ReasoningTokens  *float64           `json:"gen_ai.usage.reasoning.output_tokens"`
	Usage            map[string]float64 `json:"tollwire.usage"`
	Completeness     string             `json:"tollwire.usage.completeness"`
	UsageSource      string             `json:"tollwire.usage.source"`
	Disagreement     string             `json:"tollwire.usage.disagreement"`
	FirstByte        *float64           `json:"tollwire.time_to_first_byte"`
	FirstContent     *float64           `json:"tollwire.time_to_first_content"`
	FirstVisible     *float64           `json:"tollwire.time_to_first_visible"`
	Duration         *float64           `json:"gen_ai.client.operation.duration"`
	PerOutputToken   *float64           `json:"tollwire.time_per_output_token"`
	Chunks           int                `json:"tollwire.chunks"`
	ChunksShared     int                `json:"tollwire.chunks_shared"`
	GapP50           *float64           `json:"tollwire.gap_p50"`
	GapP95           *float64           `json:"tollwire.gap_p95"`
	GapMax           *float64           `json:"tollwire.gap_max"`
	CostUSD          string             `json:"tollwire.cost.usd"`
	CostSource       string             `json:"tollwire.cost.source"`
	PriceVersion     string             `json:"tollwire.cost.price_version"`
	Unpriced         string             `json:"tollwire.unpriced"`
	CacheSavingsUSD  string             `json:"tollwire.cache_savings.usd"`
	PID              uint32             `json:"process.pid"`
	Executable       string             `json:"process.executable.name"`
	ContainerID      string             `json:"container.id"`
	ContainerName    string             `json:"container.name"`
	ContainerRuntime string             `json:"container.runtime.name"`
	ServiceName      string             `json:"service.name"`
	ServiceNamespace string             `json:"service.namespace"`
	ServiceVersion   string             `json:"service.version"`
	ServiceInstance  string             `json:"service.instance.id"`
	Graph            string             `json:"tollwire.graph"`
	Node             string             `json:"tollwire.node"`
	NodeSource       string             `json:"tollwire.node.source"`
	Tenant           string             `json:"tollwire.tenant"`
	Session          string             `json:"tollwire.session"`
	TraceID          string             `json:"trace_id"`
	SpanID           string             `json:"span_id"`
	TraceSource      string             `json:"tollwire.trace.source"`
	Relay            string             `json:"tollwire.relay"`
	CaptureSource    string             `json:"tollwire.capture.source"`
	Partial          string             `json:"tollwire.capture.partial"`
	LostBytes        uint64             `json:"tollwire.capture.lost_bytes"`
	SourceID         string             `json:"tollwire.source_id"`

	// Kubernetes holds every k8s.* key.
	Kubernetes map[string]string `json:"-"`
}

// Counted reports whether the line's tokens and money belong in a sum over lines.
func (l *Line) Counted() bool { return l.Relay == "" || l.Relay == "payer" }

// Parse reads one line. Keys it does not know are skipped, so that older readers
// read newer files.
func Parse(b []byte) (*Line, error) {
	var l Line
	if err := json.Unmarshal(b, &l); err != nil {
		return nil, fmt.Errorf("parse record: %w", err)
	}
	if !bytes.Contains(b, []byte(`"k8s.`)) {
		return &l, nil
	}
	var all map[string]json.RawMessage
	if err := json.Unmarshal(b, &all); err != nil {
		return nil, fmt.Errorf("parse record: %w", err)
	}
	for k, v := range all {
		var s string
		if strings.HasPrefix(k, "k8s.") && json.Unmarshal(v, &s) == nil {
			if l.Kubernetes == nil {
				l.Kubernetes = make(map[string]string)
			}
			l.Kubernetes[k] = s
		}
	}
	return &l, nil
}
