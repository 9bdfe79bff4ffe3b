// Package llm holds the words the decoder speaks: a call to a model, what it
// used, and how sure the agent is. It knows no wire format and no vendor.
package llm

import (
	"time"

	"github.com/tollwire/tollwire/flow"
)

// Role is the end of the call that the captured process stands at.
type Role uint8

const (
	RoleUnknown Role = iota
	RoleClient       // wrote the request
	RoleServer       // read it
)

func (r Role) String() string { return [...]string{"", "client", "server"}[r] }

// Partial says why a record is not whole. Empty means whole.
type Partial string

// Values of tollwire.capture.partial, the worst last.
const (
	PartialNone       Partial = ""
	PartialLateAttach Partial = "late_attach" // the connection began before the tap
	PartialOverLimit  Partial = "over_limit"  // a body was longer than the capture limit
	PartialCut        Partial = "cut"         // the stream or body ended before its end
	PartialLost       Partial = "lost"        // bytes in the middle are missing
)

// Call is one call to a model, as far as the wire tells. Empty strings and nil
// slices mean that the wire did not say.
type Call struct {
	Conn   flow.Conn
	Source flow.Source
	Cgroup uint64
	Peer   string // address of the other end when the kernel knows it
	Role   Role

	Provider      string // gen_ai.provider.name
	Operation     string // gen_ai.operation.name
	Vendor        string // the decoder that read it: "openai", "anthropic", …
	API           string // a priced HTTP API that is no model, by the name of its rule; "" for a model's call
	RequestModel  string
	ResponseModel string
	ResponseID    string
	FinishReasons []string // the provider's own words, one a choice
	Stream        bool     // asked for a stream, or got one
	ServiceTier   string   // as served
	Region        string   // region or geography as served, for pricing

	Method        string
	Path          string // without the query
	ServerAddress string // host without port, lower case
	ServerPort    int
	Status        int    // HTTP status; 0 when no response was seen
	ErrorType     string // the provider's own, else the status, else "cut", "timeout"
	InBandError   bool   // the error stood in the body of a 200

	Usage        Usage
	Completeness Completeness
	UsageSource  UsageSource
	Disagreement string // how the response contradicts itself; "" when it doesn't

	StatedCost       string // exact decimal, in StatedCostUnit
	StatedCostSource string // which field or header said so
	Cost             CostHints

	Times Times

	ToolCalls []string // names of the tools the model called, in order, bounded
	Quality   []string // signals: schema_invalid, arguments_invalid, length, refusal, filtered, empty
	MCP       MCP

	// Evidence for attribution, from allow-listed request headers and metadata only.
	Headers     map[string]string // lower-case names
	Metadata    map[string]string // the request body's metadata keys, bounded
	TraceParent string
	Baggage     string            // W3C, the allow-listed members
	APIKey      []byte            // keyed hash of the credential; never the credential
	RetryGroup  string            // ties the tries of one SDK call: the keyed hash of its invocation or idempotency id
	RetryCount  int               // tries before this one, as the SDK counts them
	RateLimit   map[string]string // the provider's rate-limit response headers, lower-case names, bounded

	// Deferred is the part of an exchange in a call whose answer is fetched later.
	Deferred Deferred

	RequestBytes  int64 // body bytes on the wire, holes included
	ResponseBytes int64

	Partial   Partial
	LostBytes uint64
	SourceID  string // replay only: the recording's own id
}

// Deferred tells exchanges that ask for an answer from those that fetch it.
type Deferred uint8

const (
	NotDeferred     Deferred = iota
	DeferredAsked            // the answer will be ready later, and can be fetched by ResponseID
	DeferredWaiting          // asked whether it is ready, and it isn't: no call of its own
	DeferredDone             // the answer is here
)

// CostHints are facts of the request and response that only a price depends on.
type CostHints struct {
	SearchContextSize string // "low", "medium", "high"
	ImageSize         string // "1024x1024"
	ImageQuality      string
	ToolRequests      map[string]int // billed tool calls by the provider's name: web_search, file_search …
}

// MCP is set for operation execute_tool.
type MCP struct {
	Method, Tool, Session string
	IsError               bool
	ErrorCode             int
}

// Times are the moments of a call on the capturing clock; zero when not seen.
type Times struct {
	Start        flow.Time // request's first byte
	RequestEnd   flow.Time // request's last byte
	FirstByte    flow.Time // response's first byte (its head)
	FirstChunk   flow.Time // first chunk of any kind of the body
	FirstContent flow.Time // first content, reasoning included
	FirstVisible flow.Time // first content that is no reasoning
	LastContent  flow.Time
	End          flow.Time // response's last byte, or the moment it was given up

	Chunks   int       // content chunks
	AnyChunk int       // chunks of any kind
	Shared   int       // content chunks that shared the time of a read with the one before
	Gaps     Histogram // between content chunks
	AnyGaps  Histogram // between chunks of any kind
}

// Wall turns a flow.Time into wall clock time.
type Wall func(flow.Time) time.Time

// Completeness is how sure the usage is.
type Completeness uint8

const (
	Missing   Completeness = iota // nothing stated, nothing counted
	Estimated                     // counted by a tokenizer, or stated before a cut or a hole
	Exact                         // the provider's final usage was seen
)

func (c Completeness) String() string { return [...]string{"missing", "estimated", "exact"}[c] }

// UsageSource is where the usage was read. The empty string means missing.
type UsageSource string

const (
	SourceBody          UsageSource = "body"
	SourceStream        UsageSource = "stream"
	SourceHeader        UsageSource = "header"
	SourceTrailerEvent  UsageSource = "trailer_event"
	SourceStreamPartial UsageSource = "stream_partial"
	SourceTokenizer     UsageSource = "tokenizer"
)
