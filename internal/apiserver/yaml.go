package apiserver

import (
	"fmt"
	"unicode/utf8"

	"sigs.k8s.io/yaml"
)

// toYAML writes JSON as YAML. The library reads JSON as the YAML that it nearly is: characters that JSON's strings may hold and YAML's must not, and those that
// end a line in YAML alone, would be refused or become blanks. They are written as escapes, which both understand.
func toYAML(json []byte) ([]byte, error) {
	return yaml.JSONToYAML(escaped(json))
}

// escaped is the same JSON without characters that mean something else, or nothing, to YAML. They can only be within strings.
func escaped(json []byte) []byte {
	var out []byte
	done := 0
	for i := 0; i < len(json); {
		if json[i] < utf8.RuneSelf && json[i] != 0x7f {
			i++
			continue
		}
		r, n := utf8.DecodeRune(json[i:])
		if !plainInYAML(r) {
			out = fmt.Appendf(append(out, json[done:i]...), `\u%04x`, r)
			done = i + n
		}
		i += n
	}
	if done == 0 {
		return json
	}
	return append(out, json[done:]...)
}

// plainInYAML says whether YAML 1.1 takes a character beyond ASCII, or the last of ASCII, for itself (section 5.1): it allows neither DEL, nor control characters, nor
// what is no character; NEL and the separators of lines and paragraphs end a line.
func plainInYAML(r rune) bool {
	switch {
	case r >= 0x7f && r < 0xa0, r == '\u2028', r == '\u2029', r == 0xfeff, r == 0xfffe, r == 0xffff:
		return false
	}
	return true
}
