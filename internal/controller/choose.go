package controller

import (
	"fmt"
	"slices"
	"strings"
)

// Check says what is wrong with a selection, before anything has started.
func Check(selection string) error {
	_, err := choose(selection, Names())
	return err
}

// Selected says whether a selection, which must be in order, has a controller in it.
func Selected(selection, name string) bool {
	chosen, err := choose(selection, Names())
	return err == nil && chosen[name]
}

// choose reads --controllers as upstream does: "*" is every controller, "name" turns one on, "-name" turns one off, whatever the order.
// Nothing at all means "*".
func choose(selection string, known []string) (map[string]bool, error) {
	chosen := map[string]bool{}
	star := strings.TrimSpace(selection) == ""
	explicit := map[string]bool{}
	for word := range strings.SplitSeq(selection, ",") {
		word = strings.TrimSpace(word)
		name, off := strings.CutPrefix(word, "-")
		switch {
		case word == "":
		case word == "*":
			star = true
		case !slices.Contains(known, name):
			return nil, fmt.Errorf("--controllers: there is no controller %q; there are %s, and * for all of them", name, strings.Join(known, ", "))
		default:
			explicit[name] = !off
		}
	}
	for _, name := range known {
		on, said := explicit[name]
		chosen[name] = on || star && !said
	}
	return chosen, nil
}
