package sim

import (
	"bufio"
	"bytes"
	"cmp"
	"compress/flate"
	"crypto/sha1"
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"strings"

	"github.com/gobwas/ws"

	"github.com/tollwire/tollwire/llm"
)

// maxMessage bounds a WebSocket message, compressed or not.
const maxMessage = 16 << 20

// socket is the server's end of a WebSocket (RFC 6455) with permessage-deflate and
// context takeover (RFC 7692) when the client offered it and the plan's encoding
// is auto or deflate.
type socket struct {
	conn    io.ReadWriteCloser
	in      *bufio.Reader
	deflate bool
	out     bytes.Buffer
	packer  *flate.Writer
	window  []byte // the last 32 KiB that the client sent, for its next message
	split   bool   // send each message in two fragments
}

// isUpgrade reports whether r asks for a WebSocket.
func isUpgrade(r *http.Request) bool {
	return r.ProtoMajor == 1 && strings.EqualFold(r.Header.Get("Upgrade"), "websocket") && r.Header.Get("Sec-Websocket-Key") != ""
}

func openSocket(w http.ResponseWriter, r *http.Request, p *Plan) (*socket, error) {
	conn, rw, err := http.NewResponseController(w).Hijack()
	if err != nil {
		return nil, fmt.Errorf("take over the connection: %w", err)
	}
	s := &socket{conn: conn, in: rw.Reader, split: p.Split > 0}
	offered := strings.Contains(r.Header.Get("Sec-Websocket-Extensions"), "permessage-deflate")
	s.deflate = offered && (p.Encoding == "auto" || p.Encoding == "deflate")
	accept := sha1.Sum([]byte(r.Header.Get("Sec-Websocket-Key") + "258EAFA5-E914-47DA-95CA-C5AB0DC85B11"))
	var b strings.Builder
	b.WriteString("HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n")
	fmt.Fprintf(&b, "Sec-WebSocket-Accept: %s\r\n", base64.StdEncoding.EncodeToString(accept[:]))
	if s.deflate {
		b.WriteString("Sec-WebSocket-Extensions: permessage-deflate\r\n")
		s.packer, _ = flate.NewWriter(&s.out, flate.DefaultCompression) // the level is a valid one
	}
	// Of the subprotocols that carry OpenAI's key only the first is agreed to.
	if first, _, _ := strings.Cut(r.Header.Get("Sec-Websocket-Protocol"), ","); first != "" {
		fmt.Fprintf(&b, "Sec-WebSocket-Protocol: %s\r\n", strings.TrimSpace(first))
	}
	b.WriteString("\r\n")
	if _, err := io.WriteString(conn, b.String()); err != nil {
		conn.Close()
		return nil, fmt.Errorf("answer the upgrade: %w", err)
	}
	return s, nil
}

// read returns the next message of the client and when its first byte was there.
// It answers pings. io.EOF means that the client closed in order.
func (s *socket) read() (msg []byte, at int64, err error) {
	packed := false
	for first := true; ; {
		if _, err := s.in.Peek(1); err != nil {
			return nil, 0, err
		}
		if first {
			at = Now()
		}
		h, err := ws.ReadHeader(s.in)
		if err != nil {
			return nil, 0, fmt.Errorf("read frame: %w", err)
		}
		if h.Length < 0 || h.Length > maxMessage-int64(len(msg)) {
			return nil, 0, fmt.Errorf("message of more than %d bytes", maxMessage)
		}
		p := make([]byte, h.Length)
		if _, err := io.ReadFull(s.in, p); err != nil {
			return nil, 0, fmt.Errorf("read frame: %w", err)
		}
		if h.Masked {
			ws.Cipher(p, h.Mask, 0)
		}
		switch h.OpCode {
		case ws.OpClose:
			s.frame(ws.OpClose, p[:min(len(p), 2)], true, false)
			return nil, 0, io.EOF
		case ws.OpPing:
			if err := s.frame(ws.OpPong, p, true, false); err != nil {
				return nil, 0, err
			}
			continue
		case ws.OpPong:
			continue
		}
		if first {
			packed, first = h.Rsv1(), false
		}
		if msg = append(msg, p...); h.Fin {
			break
		}
	}
	if !packed {
		return msg, at, nil
	}
	if !s.deflate {
		return nil, 0, errors.New("compressed message without permessage-deflate")
	}
	msg, err = s.unpack(msg)
	return msg, at, err
}

// unpack undoes a message's compression with what the messages before it left in
// the window.
func (s *socket) unpack(p []byte) ([]byte, error) {
	tail := "\x00\x00\xff\xff\x01\x00\x00\xff\xff" // what the sender left out, and an end
	r := flate.NewReaderDict(io.MultiReader(bytes.NewReader(p), strings.NewReader(tail)), s.window)
	out, err := io.ReadAll(io.LimitReader(r, maxMessage))
	if err != nil {
		return nil, fmt.Errorf("unpack message: %w", err)
	}
	s.window = append(s.window, out...)
	if n := len(s.window) - 32<<10; n > 0 {
		s.window = append([]byte(nil), s.window[n:]...)
	}
	return out, nil
}

// write sends one text message.
func (s *socket) write(msg []byte) error {
	if s.deflate {
		s.out.Reset()
		s.packer.Write(msg)
		s.packer.Flush()
		msg = bytes.TrimSuffix(s.out.Bytes(), []byte("\x00\x00\xff\xff"))
	}
	if !s.split || len(msg) < 2 {
		return s.frame(ws.OpText, msg, true, s.deflate)
	}
	if err := s.frame(ws.OpText, msg[:len(msg)/2], false, s.deflate); err != nil {
		return err
	}
	return s.frame(ws.OpContinuation, msg[len(msg)/2:], true, false)
}

func (s *socket) frame(op ws.OpCode, p []byte, fin, packed bool) error {
	var b bytes.Buffer
	h := ws.Header{Fin: fin, OpCode: op, Length: int64(len(p)), Rsv: ws.Rsv(packed, false, false)}
	if err := ws.WriteHeader(&b, h); err != nil {
		return err
	}
	b.Write(p)
	_, err := s.conn.Write(b.Bytes())
	return err
}

// dialogue is what is spoken on a WebSocket.
type dialogue struct {
	provider string
	// hello are the server's first messages.
	hello func(c *call) [][]byte
	// begin starts a session.
	begin func() reply
}

// reply says what a client's message leads to: plain replies, or, when events is not
// nil, a call to the model.
type reply func(c *call, msg []byte) (replies [][]byte, events func(yield func(event) bool))

// always is the beginning of a session that remembers nothing.
func always(r reply) func() reply { return func() reply { return r } }

// socketRoutes are the paths that are upgraded.
var socketRoutes = []struct {
	match func(string) bool
	*dialogue
}{
	{ends("/realtime"), realtime},
	{ends("/responses"), responsesSocket},
	{ends("BidiGenerateContent"), geminiLive},
	{ends("/api-ws/v1/inference"), dashscopeTasks},
}

// serveSocket speaks d on r's connection until either side closes. Each call to
// the model is an entry of its own.
func (s *Server) serveSocket(d *dialogue, w http.ResponseWriter, r *http.Request) {
	plan, err := planFor(s.plan, r)
	if err != nil {
		sendJSON(w, http.StatusBadRequest, object{"error": object{"message": err.Error()}})
		return
	}
	c := s.begin(w, r)
	c.plan = plan
	c.ask.Model = cmp.Or(r.URL.Query().Get("model"), r.URL.Query().Get("deployment"))
	sock, err := openSocket(w, r, &plan)
	if err != nil {
		s.log.Debug("upgrade", "err", err)
		return
	}
	defer sock.conn.Close()
	if d.hello != nil {
		for _, m := range d.hello(c) {
			if sock.write(m) != nil {
				return
			}
		}
	}
	model, answer := c.ask.Model, d.begin()
	for {
		msg, at, err := sock.read()
		if err != nil {
			if !errors.Is(err, io.EOF) {
				s.log.Debug("websocket", "err", err)
			}
			return
		}
		c := s.begin(w, r)
		c.plan, c.body, c.seed, c.ask.Model = plan, msg, plan.Seed, model
		if c.plan.Input < 0 {
			c.plan.Input = max(1, len(msg)/4)
		}
		e := c.entry
		e.FirstByte, e.RequestEnd, e.RequestBytes = at, Now(), int64(len(msg))
		e.Provider, e.Operation, e.HTTP, e.Stream, e.Status = d.provider, "chat", "websocket", true, http.StatusSwitchingProtocols
		if p := hostProvider(r.Host); p != "" && d.provider == "openai" {
			e.Provider = p
		}
		replies, events := answer(c, msg)
		model = c.ask.Model
		for _, m := range replies {
			if sock.write(m) != nil {
				return
			}
		}
		if events == nil {
			continue
		}
		e.Asked = c.ask.Model
		open := c.converse(sock, events)
		if !c.stage.Empty() {
			e.Usage = classes(&c.stage)
		}
		s.ledger.add(e)
		if !open {
			return
		}
	}
}

// converse sends a call's events; false means that the connection is to be closed.
func (c *call) converse(sock *socket, events func(yield func(event) bool)) bool {
	e := c.entry
	defer func() { e.End = Now() }()
	pace := newPace(&c.plan)
	contents := 0
	for ev := range events {
		if ev.tokens > 0 {
			pace.advance(ev.tokens)
			if !c.until(pace.due) {
				e.Outcome = "client_gone"
				return false
			}
		}
		n := 0
		if ev.content {
			if contents == c.plan.Cut {
				e.Outcome = "cut"
				return false
			}
			n, contents = 1, contents+1
		}
		e.write(Write{At: Now(), Bytes: len(ev.data), Content: n})
		if err := sock.write(ev.data); err != nil {
			e.Outcome = "client_gone"
			return false
		}
		e.ResponseBytes += int64(len(ev.data))
		c.say(ev.usage, ev.final)
		if ev.finish != "" {
			e.Finish = append(e.Finish, ev.finish)
		}
	}
	return true
}

// typeOf is a message's "type".
func typeOf(msg []byte) string {
	var v struct {
		Type string `json:"type"`
	}
	if json.Unmarshal(msg, &v) != nil {
		return ""
	}
	return v.Type
}

// responsesSocket is the Responses API over a WebSocket: each response.create is
// answered by the events of the stream.
var responsesSocket = &dialogue{
	provider: "openai",
	begin: always(func(c *call, msg []byte) ([][]byte, func(func(event) bool)) {
		if typeOf(msg) != "response.create" || json.Unmarshal(msg, &c.ask) != nil {
			return [][]byte{compact(object{"type": "error", "status": 400,
				"error": object{"type": "invalid_request_error", "code": "unknown_event", "message": "want response.create"}})}, nil
		}
		return nil, newResponse(c).events()
	}),
}

// geminiLive is Gemini's BidiGenerateContent, text only: a setup, then a turn of
// the model for each turn the client completes.
var geminiLive = &dialogue{
	provider: "gcp.gemini",
	begin: always(func(c *call, msg []byte) ([][]byte, func(func(event) bool)) {
		var v struct {
			Setup *struct {
				Model string `json:"model"`
			} `json:"setup"`
			Content *struct {
				Complete bool `json:"turnComplete"`
			} `json:"clientContent"`
		}
		if json.Unmarshal(msg, &v) != nil {
			return nil, nil
		}
		if v.Setup != nil {
			c.ask.Model = strings.TrimPrefix(v.Setup.Model, "models/")
			return [][]byte{compact(object{"setupComplete": object{}})}, nil
		}
		if v.Content == nil || !v.Content.Complete {
			return nil, nil
		}
		p := &c.plan
		c.entry.Operation = "generate_content"
		usage := object{"promptTokenCount": p.Input, "responseTokenCount": p.Tokens, "totalTokenCount": p.Input + p.Tokens + p.Think,
			"responseTokensDetails": []any{object{"modality": "TEXT", "tokenCount": p.Tokens}}}
		var u llm.Usage
		u.Set(llm.Input, float64(p.Input))
		u.Set(llm.Output, float64(p.Tokens))
		if p.Think > 0 {
			usage["thoughtsTokenCount"] = p.Think
			u.Set(llm.Reasoning, float64(p.Think))
		}
		c.entry.Generated = classes(&u)
		return nil, func(yield func(event) bool) {
			for w := range speak(p, c.seed) {
				m := object{"serverContent": object{"modelTurn": object{"role": "model", "parts": []any{object{"text": w.text}}}}}
				if !yield(event{data: compact(m), content: true, tokens: max(1, w.tokens)}) {
					return
				}
			}
			if yield(event{data: compact(object{"serverContent": object{"generationComplete": true}})}) {
				yield(event{data: compact(object{"serverContent": object{"turnComplete": true}, "usageMetadata": usage}), usage: &u, final: true})
			}
		}
	}),
}
