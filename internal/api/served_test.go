package api

import (
	"bufio"
	"bytes"
	_ "embed"
	"fmt"
	"slices"
	"strings"
	"testing"
)

// servedKinds is what a Kubernetes 1.37 serves of each group, a resource a line: group/version, plural, kind, scope, short names, categories, verbs
// ("*" for all of a stored resource), subresources.
//
//go:embed testdata/served.txt
var servedKinds []byte

func servedLine(r *Resource, as *Resource) string {
	scope, verbs := "cluster", strings.Join(r.Verbs, ",")
	if r.Namespaced {
		scope = "namespaced"
	}
	if slices.Equal(r.Verbs, AllVerbs) {
		verbs = "*"
	}
	version := as.Version
	if as.Group != "" {
		version = as.Group + "/" + version
	}
	subs := []string{}
	if r.Status {
		subs = append(subs, "status:"+as.Kind+"(get,patch,update)")
	}
	for _, s := range r.Subresources {
		kind := s.Kind
		if s.Group != "" {
			kind = s.Group + "/" + s.Version + "." + kind
		}
		subs = append(subs, s.Name+":"+kind+"("+strings.Join(s.Verbs, ",")+")")
	}
	slices.Sort(subs)
	dash := func(list []string, sep string) string {
		if len(list) == 0 {
			return "-"
		}
		return strings.Join(list, sep)
	}
	return fmt.Sprintf("%s %s %s %s %s %s %s %s", version, r.Plural, as.Kind, scope, dash(r.Short, ","), dash(r.Categories, ","), verbs, dash(subs, ";"))
}

func TestEveryKindIsServedAsUpstreamServesIt(t *testing.T) {
	var want []string
	groups := map[string]bool{}
	for lines := bufio.NewScanner(bytes.NewReader(servedKinds)); lines.Scan(); {
		if line := strings.TrimSpace(lines.Text()); line != "" && line[0] != '#' {
			want = append(want, line)
			version, _, _ := strings.Cut(line, " ")
			groups[version] = true
		}
	}
	var got []string
	for _, r := range NewTable(Optional()...).All() {
		lines := []string{servedLine(r, r)}
		for i := range r.Also {
			lines = append(lines, servedLine(r, r.Also[i].Row()))
		}
		got = append(got, lines...)
	}
	for _, line := range want {
		if !slices.Contains(got, line) {
			t.Errorf("not served: %s", line)
		}
	}
	for _, line := range got {
		if version, _, _ := strings.Cut(line, " "); groups[version] && !slices.Contains(want, line) {
			t.Errorf("served, and not listed: %s", line)
		}
	}
}
