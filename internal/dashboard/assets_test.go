package dashboard

import (
	"bytes"
	"crypto/sha256"
	"encoding/hex"
	"io/fs"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"
)

func TestPage(t *testing.T) {
	f := start(t)
	nonce := regexp.MustCompile(`'nonce-([\w-]{40,})'`)
	seen := map[string]bool{}
	for range 2 {
		w := f.ask("GET /ui/", "", "Sec-Fetch-Site", "cross-site", "Sec-Fetch-Mode", "navigate") // a link from elsewhere
		policy := w.Header().Get("Content-Security-Policy")
		m := nonce.FindStringSubmatch(policy)
		if w.Code != 200 || m == nil || seen[m[1]] {
			t.Fatalf("%d, policy %s", w.Code, policy)
		}
		seen[m[1]] = true
		if strings.Contains(policy, "unsafe") || !strings.HasPrefix(policy, "default-src 'none'; script-src 'self';") || !strings.Contains(policy, "frame-ancestors 'none'") {
			t.Errorf("policy %s", policy)
		}
		page := w.Body.String()
		if !strings.Contains(page, `nonce="`+m[1]+`"`) || strings.Contains(page, "<style") || strings.Contains(page, "</script>\n<script>") || strings.Contains(page, "http://") && !strings.Contains(page, "www.w3.org") {
			t.Errorf("the page is\n%s", page)
		}
		for _, src := range regexp.MustCompile(`(?:src|href)="([^"]+\.(?:js|css))"`).FindAllStringSubmatch(page, -1) {
			testAsset(t, f, src[1])
		}
	}
}

func testAsset(t *testing.T, f *fixture, name string) {
	plain := f.ask("GET /ui/"+name, "")
	packed := f.ask("GET /ui/"+name, "", "Accept-Encoding", "gzip, br")
	want, err := content(name)
	if err != nil || plain.Code != 200 || !bytes.Equal(plain.Body.Bytes(), want) {
		t.Errorf("%s: %v, %d", name, err, plain.Code)
	}
	if packed.Header().Get("Content-Encoding") != "gzip" || packed.Body.Len() >= len(want) || !strings.Contains(packed.Header().Get("Cache-Control"), "immutable") {
		t.Errorf("%s: %v", name, packed.Header())
	}
}

func TestBundleIsSmall(t *testing.T) {
	total := 0
	err := fs.WalkDir(dist, "dist", func(path string, d fs.DirEntry, err error) error {
		if err != nil || d.IsDir() {
			return err
		}
		info, err := d.Info()
		total += int(info.Size())
		return err
	})
	if err != nil || total > 500<<10 || total < 50<<10 {
		t.Errorf("%v: %d bytes", err, total)
	}
}

// TestBundleIsOfTheseSources: what is embedded was built from what is in ui. That building gives the same again is tested with Node.js, in test.
func TestBundleIsOfTheseSources(t *testing.T) {
	root := filepath.Join("..", "..", "ui")
	files := []string{"build.mjs", "package.json", "package-lock.json", "tsconfig.json"}
	err := filepath.WalkDir(filepath.Join(root, "src"), func(path string, d fs.DirEntry, err error) error {
		if err == nil && !d.IsDir() {
			name, _ := filepath.Rel(root, path)
			files = append(files, filepath.ToSlash(name))
		}
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	slices.Sort(files)
	sum := sha256.New()
	for _, name := range files {
		raw, err := os.ReadFile(filepath.Join(root, name))
		if err != nil {
			t.Fatal(err)
		}
		sum.Write([]byte(name + "\x00"))
		sum.Write(raw)
		sum.Write([]byte{0})
	}
	want, err := os.ReadFile("dist/sources")
	if err != nil || strings.TrimSpace(string(want)) != hex.EncodeToString(sum.Sum(nil)) {
		t.Errorf("%v: the sources in ui have changed since the bundle was built; run make ui", err)
	}
}
