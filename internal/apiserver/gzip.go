package apiserver

import (
	"compress/gzip"
	"net"
	"net/http"
	"net/netip"
	"strconv"
	"strings"
	"sync"

	"k8s.io/apiserver/pkg/endpoints/request"
)

// gzipLeast is how long an answer is before it is compressed: upstream's threshold. Compressing takes longer than most of what it is made for, so it is done
// where there is a wire to save time on: not for clients on this host.
const gzipLeast = 128 << 10

var gzips = sync.Pool{New: func() any {
	z, _ := gzip.NewWriterLevel(nil, gzip.BestSpeed) // the level is one that there is
	return z
}}

// packed compresses an answer that turns out to be long. Until that is known nothing is written, not even its code.
type packed struct {
	http.ResponseWriter
	code int
	held []byte
	z    *gzip.Writer // once it is long
	asIs bool         // it is written as it comes
}

// packing is the writer for a request's answer. end must be called once all is written.
func packing(w http.ResponseWriter, r *http.Request, info *request.RequestInfo) (out http.ResponseWriter, end func()) {
	if !packable(r, info) {
		return w, func() {}
	}
	p := &packed{ResponseWriter: w}
	return p, p.end
}

// packable: documents, objects and lists; what streams must not be held back.
func packable(r *http.Request, info *request.RequestInfo) bool {
	if r.Method != http.MethodGet || !accepts(r.Header.Get("Accept-Encoding"), "gzip") || local(r.RemoteAddr) {
		return false
	}
	if !info.IsResourceRequest {
		return strings.HasPrefix(info.Path, "/openapi/")
	}
	return (info.Verb == "get" || info.Verb == "list") && (info.Subresource == "" || info.Subresource == "status")
}

// accepts says whether a client takes an encoding: it names it and does not give it a weight of nothing.
func accepts(header, encoding string) bool {
	for part := range strings.SplitSeq(header, ",") {
		name, weight, weighted := strings.Cut(strings.TrimSpace(part), ";")
		if !strings.EqualFold(strings.TrimSpace(name), encoding) {
			continue
		}
		_, q, _ := strings.Cut(weight, "=")
		n, err := strconv.ParseFloat(strings.TrimSpace(q), 64)
		return !weighted || err == nil && n > 0
	}
	return false
}

func local(address string) bool {
	host, _, _ := net.SplitHostPort(address)
	addr, err := netip.ParseAddr(host)
	return err == nil && addr.Unmap().IsLoopback()
}

func (p *packed) WriteHeader(code int) {
	if p.code != 0 {
		return
	}
	p.code = code
	length, err := strconv.Atoi(p.Header().Get("Content-Length"))
	switch {
	case code != http.StatusOK, p.Header().Get("Content-Encoding") != "", err == nil && length < gzipLeast:
		p.asIs = true
		p.ResponseWriter.WriteHeader(code)
	case err == nil:
		p.pack()
	}
}

func (p *packed) Write(b []byte) (int, error) {
	if p.code == 0 {
		p.WriteHeader(http.StatusOK)
	}
	switch {
	case p.asIs:
		return p.ResponseWriter.Write(b)
	case p.z == nil && len(p.held)+len(b) < gzipLeast:
		p.held = append(p.held, b...)
		return len(b), nil
	case p.z == nil:
		p.pack()
		if _, err := p.z.Write(p.held); err != nil {
			return 0, err
		}
		p.held = nil
	}
	return p.z.Write(b)
}

// pack begins a long answer.
func (p *packed) pack() {
	h := p.Header()
	h.Del("Content-Length")
	h.Set("Content-Encoding", "gzip")
	h.Add("Vary", "Accept-Encoding")
	p.ResponseWriter.WriteHeader(p.code)
	p.z = gzips.Get().(*gzip.Writer)
	p.z.Reset(p.ResponseWriter)
}

// end writes what is left. An error is the client's, who is gone.
func (p *packed) end() {
	switch {
	case p.z != nil:
		_ = p.z.Close()
		p.z.Reset(nil)
		gzips.Put(p.z)
	case p.code != 0 && !p.asIs:
		p.ResponseWriter.WriteHeader(p.code)
		_, _ = p.ResponseWriter.Write(p.held)
	}
}

// Unwrap lets http.ResponseController reach deadlines.
func (p *packed) Unwrap() http.ResponseWriter { return p.ResponseWriter }
