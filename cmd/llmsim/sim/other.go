package sim

import (
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"strconv"
	"strings"
	"time"
)

// serveOther answers what is no call to a model: the traffic an observer should
// not care for, and the ledger.
//
//	GET  /health          {"status":"ok"}
//	GET  /api/orders      a small list, POST: the order back with an id
//	GET  /big?bytes=N     a download of N bytes (1 MiB)
//	POST /upload          counts the bytes it is sent
//	GET  /chatty?n=N&size=S&gap=D   N small writes in one response
//	GET  /_ledger         the ledger, JSON Lines; DELETE empties it
//	GET  /_conns          the connections, JSON Lines
func (s *Server) serveOther(w http.ResponseWriter, r *http.Request) {
	switch {
	case r.URL.Path == "/health":
		sendJSON(w, http.StatusOK, map[string]string{"status": "ok"})
	case strings.HasPrefix(r.URL.Path, "/api/orders"):
		s.orders(w, r)
	case r.URL.Path == "/big":
		download(w, r)
	case r.URL.Path == "/upload" && r.Method == http.MethodPost:
		n, err := io.Copy(io.Discard, r.Body)
		if err != nil {
			return
		}
		sendJSON(w, http.StatusOK, map[string]int64{"bytes": n})
	case r.URL.Path == "/chatty":
		s.chatter(w, r)
	case r.URL.Path == "/_ledger" && r.Method == http.MethodDelete:
		s.ledger.Reset()
		w.WriteHeader(http.StatusNoContent)
	case r.URL.Path == "/_ledger":
		w.Header().Set("Content-Type", "application/x-ndjson")
		enc := json.NewEncoder(w)
		for _, e := range s.ledger.Entries() {
			enc.Encode(e)
		}
	case r.URL.Path == "/_conns":
		w.Header().Set("Content-Type", "application/x-ndjson")
		enc := json.NewEncoder(w)
		for _, c := range s.ledger.Conns() {
			enc.Encode(c)
		}
	default:
		io.Copy(io.Discard, io.LimitReader(r.Body, maxBody))
		sendJSON(w, http.StatusNotFound, map[string]string{"error": "no such path: " + r.URL.Path})
	}
}

func (s *Server) orders(w http.ResponseWriter, r *http.Request) {
	type order struct {
		ID    string `json:"id"`
		Item  string `json:"item"`
		Count int    `json:"count"`
	}
	if r.Method == http.MethodPost {
		n, err := io.Copy(io.Discard, io.LimitReader(r.Body, maxBody))
		if err != nil {
			return
		}
		sendJSON(w, http.StatusCreated, map[string]any{"id": fmt.Sprintf("ord_%d", s.connIDs.Load()), "bytes": n})
		return
	}
	list := make([]order, 20)
	for i := range list {
		list[i] = order{fmt.Sprintf("ord_%04d", i), plain[i%len(plain)], 1 + i%7}
	}
	sendJSON(w, http.StatusOK, list)
}

// download streams bytes from one buffer, so that a download of any length costs nothing.
func download(w http.ResponseWriter, r *http.Request) {
	n, err := queryInt(r, "bytes", 1<<20, 16<<30)
	if err != nil {
		sendJSON(w, http.StatusBadRequest, map[string]string{"error": err.Error()})
		return
	}
	w.Header().Set("Content-Type", "application/octet-stream")
	w.Header().Set("Content-Length", strconv.FormatInt(n, 10))
	buf := make([]byte, 64<<10)
	for i := range buf {
		buf[i] = byte(i * 7)
	}
	for n > 0 {
		m, err := w.Write(buf[:min(n, int64(len(buf)))])
		if err != nil {
			return
		}
		n -= int64(m)
	}
}

// chatter answers with many small writes, each flushed.
func (s *Server) chatter(w http.ResponseWriter, r *http.Request) {
	n, err := queryInt(r, "n", 100, 1e7)
	size, err2 := queryInt(r, "size", 64, 1<<20)
	if err != nil || err2 != nil {
		sendJSON(w, http.StatusBadRequest, map[string]string{"error": "n and size are numbers"})
		return
	}
	gap, _ := time.ParseDuration(r.URL.Query().Get("gap"))
	w.Header().Set("Content-Type", "text/plain")
	flush := http.NewResponseController(w)
	line := []byte(strings.Repeat("x", int(max(size, 1))-1) + "\n")
	for range n {
		if _, err := w.Write(line); err != nil || flush.Flush() != nil {
			return
		}
		select {
		case <-s.ctx.Done():
			return
		case <-time.After(gap):
		}
	}
}

func queryInt(r *http.Request, key string, otherwise, most int64) (int64, error) {
	v := r.URL.Query().Get(key)
	if v == "" {
		return otherwise, nil
	}
	n, err := strconv.ParseInt(v, 10, 64)
	if err != nil || n < 0 || n > most {
		return 0, fmt.Errorf("%s=%q, want a number from 0 to %d", key, v, most)
	}
	return n, nil
}

func sendJSON(w http.ResponseWriter, status int, v any) {
	b := compact(v)
	w.Header().Set("Content-Type", "application/json")
	w.Header().Set("Content-Length", strconv.Itoa(len(b)))
	w.WriteHeader(status)
	w.Write(b)
}
