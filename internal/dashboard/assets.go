package dashboard

import (
	"bytes"
	"compress/gzip"
	"embed"
	"io"
	"net/http"
	"path"
	"strings"
)

// dist is what ui/build.mjs makes of the folder ui: compressed files, whose names carry a digest of what is in them, but for the page itself.
//
//go:embed dist
var dist embed.FS

// nonceMark stands in the page where the answer's nonce goes.
const nonceMark = "NONCE"

// pagePolicy lets the page load what is served here, and nothing else. Styles that the editor and the terminal make at run time carry the nonce.
func pagePolicy(nonce string) string {
	return "default-src 'none'; script-src 'self'; style-src 'self' 'nonce-" + nonce + "'; img-src 'self' data:; connect-src 'self'; " +
		"base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
}

func (d *dashboard) index(w http.ResponseWriter, r *http.Request) {
	page, err := content("index.html")
	if err != nil {
		refuse(w, err)
		return
	}
	nonce := newSecret()
	w.Header().Set("Content-Security-Policy", pagePolicy(nonce))
	w.Header().Set("Content-Type", "text/html; charset=utf-8")
	_, _ = w.Write(bytes.ReplaceAll(page, []byte(nonceMark), []byte(nonce)))
}

// content of an asset, uncompressed.
func content(name string) ([]byte, error) {
	raw, err := dist.ReadFile("dist/" + name + ".gz")
	if err != nil {
		return nil, err
	}
	z, err := gzip.NewReader(bytes.NewReader(raw))
	if err != nil {
		return nil, err
	}
	return io.ReadAll(z)
}

var media = map[string]string{
	".js": "text/javascript; charset=utf-8", ".css": "text/css; charset=utf-8", ".svg": "image/svg+xml", ".txt": "text/plain; charset=utf-8",
}

func asset(w http.ResponseWriter, r *http.Request) {
	name := r.PathValue("file")
	kind := media[path.Ext(name)]
	raw, err := dist.ReadFile("dist/" + name + ".gz")
	if err != nil || kind == "" {
		http.NotFound(w, r)
		return
	}
	h := w.Header()
	h.Set("Content-Type", kind)
	h.Set("Cache-Control", "public, max-age=31536000, immutable")
	h.Set("Vary", "Accept-Encoding")
	if !strings.Contains(r.Header.Get("Accept-Encoding"), "gzip") {
		if raw, err = content(name); err != nil {
			refuse(w, err)
			return
		}
	} else {
		h.Set("Content-Encoding", "gzip")
	}
	_, _ = w.Write(raw)
}
