package addon

import (
	"embed"
	"io/fs"
)

// The bundles in this program, a folder each.
//
//go:embed bundled
var bundled embed.FS

// Bundled lists the add-ons whose bundles are in this program. They are disabled until somebody enables them.
func Bundled() (out []Shipped) {
	entries, err := bundled.ReadDir("bundled")
	if err != nil {
		panic(err) // the program was built without its own files
	}
	for _, e := range entries {
		files, err := fs.Sub(bundled, "bundled/"+e.Name())
		if err != nil {
			panic(err)
		}
		m, err := ReadMeta(files)
		if err != nil {
			panic(err)
		}
		out = append(out, Shipped{Name: e.Name(), Description: m.Description, Files: files, Off: true})
	}
	return out
}
