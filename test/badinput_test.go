package test

import (
	"cmp"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/x509"
	"encoding/base64"
	"encoding/json"
	"encoding/pem"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"reflect"
	"slices"
	"strings"
	"testing"

	apiextensions "k8s.io/apiextensions-apiserver/pkg/client/clientset/clientset/scheme"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/client-go/discovery"
	"k8s.io/client-go/kubernetes/scheme"
	"k8s.io/client-go/rest"
	"sigs.k8s.io/yaml"

	"skiff.dev/skiff/test/cluster"
)

// TestBadInput walks everything that discovery lists, and sends each resource and subresource what is wrong with a request. Every answer must be the client's
// fault, with a reason and a message that names what it is. A kind that is new comes in by itself; if it cannot be made of nothing it needs a sample.
func TestBadInput(t *testing.T) {
	t.Parallel()
	c := cluster.New(t, "--no-agent")
	c.Server()
	c.Apply(badInputKinds)
	c.Kubectl("wait", "--for=condition=Established", "crd", "--all")
	b := badInput{t, c, nil, c.RESTConfig().Host}
	var err error
	if b.client, err = rest.HTTPClientFor(c.RESTConfig()); err != nil {
		t.Fatal(err)
	}
	all := b.places()
	for _, p := range all {
		if p.sub == "" && p.does("create") && p.does("get") {
			b.sample(p)
		}
	}
	slices.SortFunc(all, func(a, b place) int { return strings.Compare(a.sub+a.plural, b.sub+b.plural) })
	for _, p := range all {
		t.Run(strings.Trim(p.gv.String()+"/"+p.Name, "/"), func(t *testing.T) {
			b := b
			b.t = t
			b.methods(p)
			b.names(p)
			switch {
			case p.connects():
				b.connections(p)
			default:
				b.bodies(p)
				b.patches(p)
			}
		})
	}
	if out := c.Kubectl("get", "--raw", "/readyz"); out != "ok" {
		t.Error(out)
	}
	if strings.Contains(c.Output(), "panic") {
		t.Error("the server panicked")
	}
}

// badInput sends requests as the administrator.
type badInput struct {
	t      *testing.T
	c      *cluster.Cluster
	client *http.Client
	host   string
}

// place is one resource or subresource of discovery.
type place struct {
	metav1.APIResource
	gv     schema.GroupVersion
	plural string
	sub    string
}

func (b *badInput) places() (out []place) {
	d, err := discovery.NewDiscoveryClientForConfig(b.c.RESTConfig())
	if err != nil {
		b.t.Fatal(err)
	}
	_, lists, err := d.ServerGroupsAndResources()
	if err != nil {
		b.t.Fatal(err)
	}
	for _, list := range lists {
		gv, err := schema.ParseGroupVersion(list.GroupVersion)
		if err != nil {
			b.t.Fatal(err)
		}
		for _, r := range list.APIResources {
			plural, sub, _ := strings.Cut(r.Name, "/")
			out = append(out, place{r, gv, plural, sub})
		}
	}
	if len(out) < 100 {
		b.t.Fatalf("discovery lists %d resources", len(out))
	}
	return out
}

func (p *place) does(verb string) bool { return slices.Contains(p.Verbs, verb) }

// connects: a request goes through to somebody else, or is answered by somebody else; it has no body to check.
func (p *place) connects() bool {
	return strings.HasSuffix(p.Kind, "Options") || slices.Contains([]string{"log", "explain"}, p.sub)
}

// kind that bodies have.
func (p *place) kind() schema.GroupVersionKind {
	return schema.GroupVersionKind{Group: cmp.Or(p.Group, p.gv.Group), Version: cmp.Or(p.Version, p.gv.Version), Kind: p.Kind}
}

// path of an object's subresource, or of the object; "" is the collection's.
func (p *place) path(name string) string {
	out := "/apis/" + p.gv.String()
	if p.gv.Group == "" {
		out = "/api/" + p.gv.Version
	}
	if p.Namespaced {
		out += "/namespaces/default"
	}
	out += "/" + p.plural
	if name != "" {
		out += "/" + name
	}
	if name != "" && p.sub != "" {
		out += "/" + p.sub
	}
	return out
}

// absent: there is no object of the kind, so that most of what is wrong is not looked at.
func (p *place) absent() bool { return strings.HasPrefix(badInputSamples[p.plural], "none: ") }

func (p *place) there() string { return cmp.Or(badInputNames[p.plural], "there") }

// body of the place's kind: its type, a name, and more.
func (p *place) body(name, more string) string {
	quoted, err := json.Marshal(name)
	if err != nil {
		panic(err) // it is a string
	}
	return fmt.Sprintf(`{"apiVersion":%q,"kind":%q,"metadata":{"name":%s}%s}`, p.kind().GroupVersion(), p.Kind, quoted, more)
}

// sample makes an object of a kind.
func (b *badInput) sample(p place) {
	more := badInputSamples[p.plural]
	if p.plural == "certificatesigningrequests" {
		more = "spec: {signerName: example.com/a, usages: [client auth], request: " + certificateRequest(b.t) + "}"
	}
	if p.absent() {
		return
	}
	raw, err := yaml.YAMLToJSON([]byte("{" + strings.TrimPrefix(more, ", ") + "}"))
	if err != nil {
		b.t.Fatalf("the sample of %s: %v", p.Name, err)
	}
	more = strings.TrimSuffix(strings.TrimPrefix(string(raw), "{"), "}")
	if more != "" {
		more = "," + more
	}
	if p.plural == "customresourcedefinitions" { // it is there
		return
	}
	if got := b.ask("POST", p.path(""), p.body(p.there(), more)); got.code != http.StatusCreated && got.Reason != metav1.StatusReasonAlreadyExists {
		b.t.Errorf("the sample of %s needs more (badInputSamples): %d %s", p.Name, got.code, got.Message)
	}
}

// certificateRequest is what a CertificateSigningRequest holds.
func certificateRequest(t *testing.T) string {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	der, err := x509.CreateCertificateRequest(rand.Reader, &x509.CertificateRequest{}, key)
	if err != nil {
		t.Fatal(err)
	}
	return base64.StdEncoding.EncodeToString(pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE REQUEST", Bytes: der}))
}

// said is an answer.
type said struct {
	code int
	metav1.Status
	raw string
}

func (b *badInput) ask(method, path, body string, headers ...string) said {
	b.t.Helper()
	var r io.Reader
	if body != "" {
		r = strings.NewReader(body)
	}
	req, err := http.NewRequestWithContext(b.t.Context(), method, b.host+path, r)
	if err != nil {
		b.t.Fatal(err)
	}
	if body != "" {
		req.Header.Set("Content-Type", "application/json")
	}
	for i := 0; i < len(headers); i += 2 {
		req.Header.Set(headers[i], headers[i+1])
	}
	resp, err := b.client.Do(req)
	if err != nil {
		b.t.Fatalf("%s %s: %v", method, path, err)
	}
	raw, err := io.ReadAll(resp.Body)
	if err := errors.Join(err, resp.Body.Close()); err != nil {
		b.t.Fatalf("%s %s: %v", method, path, err)
	}
	out := said{code: resp.StatusCode, raw: string(raw)}
	_ = json.Unmarshal(raw, &out.Status) // what is no Status is found out by who wants one
	return out
}

// refused checks that an answer is a Status that says what the client did wrong: with a reason, and one of the words.
func (b *badInput) refused(what, method, path string, got said, words ...string) {
	b.t.Helper()
	complain := func(why string) {
		b.t.Errorf("%s: %s %.200s: %s: %d %.600s", what, method, path, why, got.code, got.raw)
	}
	switch {
	case got.code < 400 || got.code >= 500:
		complain("not refused as the client's fault")
	case got.Kind != "Status" || got.Status.Status != metav1.StatusFailure || int(got.Code) != got.code:
		complain("no Status")
	case got.Reason == "" || got.Message == "":
		complain("no reason or message")
	case len(words) > 0 && !slices.ContainsFunc(words, func(w string) bool { return strings.Contains(got.Message, w) }):
		complain(fmt.Sprintf("none of %q in the message", words))
	}
}

// methods that a place has not.
func (b *badInput) methods(p place) {
	body := p.body(p.there(), "")
	for method, verb := range map[string]string{"GET": "get", "POST": "create", "PUT": "update", "PATCH": "patch", "DELETE": "delete", "FROB": ""} {
		if p.sub == "" && verb == "create" || !p.does(verb) {
			got := b.ask(method, p.path(p.there()), body)
			b.refused("a method that is not there", method, p.path(p.there()), got, "the server does not allow "+method+" on "+p.path(p.there()))
			if got.code != http.StatusMethodNotAllowed {
				b.t.Errorf("%s: %d", method, got.code)
			}
		}
	}
}

// createdByUpdates are the kinds that a PUT creates, as upstream.
var createdByUpdates = []string{
	"clusterrolebindings", "clusterroles", "endpoints", "events", "leases", "limitranges", "rolebindings", "roles", "runtimeclasses", "services",
}

// names that nothing has or can have.
func (b *badInput) names(p place) {
	long := strings.Repeat("a", 300)
	for method, verb := range map[string]string{"GET": "get", "POST": "create", "PUT": "update", "PATCH": "patch", "DELETE": "delete"} {
		if p.sub == "" && verb == "create" || !p.does(verb) {
			continue
		}
		for _, name := range []string{"nobody", "UPPER_case", "a b", "a\x00b", "a/../b", "-", "ü", "a;b", "a%b", long, "${name}", "<script>"} {
			var body string
			var headers []string
			switch {
			case verb == "patch":
				body, headers = `{"metadata":{"labels":{"a":"b"}}}`, []string{"Content-Type", "application/merge-patch+json"}
			case verb != "get" && verb != "delete" && !p.connects():
				body = p.body(name, badInputMore[p.sub])
			}
			path := p.path(url.PathEscape(name))
			if verb == "update" && p.sub == "" {
				path += "?dryRun=All" // some kinds are created by it, under whatever name they may have
			}
			got := b.ask(method, path, body, headers...)
			if verb == "update" && got.code == http.StatusCreated && p.sub == "" && slices.Contains(createdByUpdates, p.plural) {
				continue
			}
			var words []string
			if name == "nobody" {
				words = []string{"nobody"}
			}
			b.refused("a name that nothing has", method, path, got, words...)
		}
	}
	if p.sub != "" || !p.does("create") || !p.does("get") {
		return
	}
	for _, name := range []string{"", "UPPER_case/", "..", ".", "a%b"} {
		got := b.ask("POST", p.path("")+"?dryRun=All", p.body(name, ""))
		b.refused("an object that cannot be called so", "POST", p.path(""), got, "metadata.name", "name or generateName is required")
	}
	for _, name := range []string{"a b", "a\x00b", "ü", long} { // some kinds may be called so
		if got := b.ask("POST", p.path("")+"?dryRun=All", p.body(name, "")); got.code != http.StatusCreated {
			b.refused("an object of an odd name", "POST", p.path(""), got)
		}
	}
}

// fault is what can be wrong with a body.
type fault struct {
	what, body string
	headers    []string
	words      []string
}

func bodyFaults(p place) []fault {
	media := func(m string) []string { return []string{"Content-Type", m} }
	out := []fault{
		{"half a body", p.body("a", "")[:20], nil, []string{"unexpected end of JSON", "unexpected EOF"}},
		{"a list", "[1]", nil, []string{p.Kind}},
		{"text", "hello", nil, []string{p.Kind}},
		{"null and more", "null null", nil, []string{p.Kind}},
		{"no body", "", nil, []string{"the body is empty"}},
		{"another kind", `{"apiVersion":"` + p.kind().GroupVersion().String() + `","kind":"Frob"}`, nil, []string{"Frob"}},
		{"another version", `{"apiVersion":"frob/v9","kind":"` + p.Kind + `"}`, nil, []string{"frob/v9"}},
		{"metadata of another type", `{"metadata":7}`, nil, []string{"metadata"}},
		{"a name of another type", `{"metadata":{"name":{}}}`, nil, []string{"name"}},
		{"labels of another type", `{"metadata":{"labels":[]}}`, nil, []string{"labels"}},
		{"a version of another type", `{"apiVersion":7}`, nil, []string{"apiVersion"}},
		{"text as a body", "a: b", media("text/plain"), []string{"accepted media types include: application/json"}},
		{"a patch as a body", "{}", media("application/merge-patch+json"), []string{"accepted media types include: application/json"}},
		{"media that are none", "{}", media(";;"), []string{"accepted media types include: application/json"}},
		{"half a YAML", "a: [", media("application/yaml"), []string{p.Kind}},
		{"YAML of tabs", "\ta: b", media("application/yaml"), []string{p.Kind}},
		{"no protobuf", "k8s\x00\xff\xff\xff", media("application/vnd.kubernetes.protobuf"), []string{p.Kind, "accepted media types include: application/json"}},
		{"protobuf without its mark", "\x0a\x00", media("application/vnd.kubernetes.protobuf"), []string{p.Kind, "accepted media types include: application/json"}},
		{"deeper than anything", strings.Repeat(`{"metadata":`, 11_000), nil, []string{p.Kind}},
	}
	for name, wrong := range wrongFields(p.kind()) {
		out = append(out, fault{name + " of another type", fmt.Sprintf(`{%q:%s}`, name, wrong), nil, []string{name}})
	}
	if p.Namespaced {
		out = append(out, fault{"another namespace", fmt.Sprintf(`{"apiVersion":%q,"kind":%q,"metadata":{"name":%q,"namespace":"elsewhere"}}`, p.kind().GroupVersion(), p.Kind, p.there()), nil, []string{"namespace"}})
	}
	return out
}

// wrongFields are values that the fields of a kind cannot have.
func wrongFields(kind schema.GroupVersionKind) map[string]string {
	obj, err := scheme.Scheme.New(kind)
	if err != nil {
		if obj, err = apiextensions.Scheme.New(kind); err != nil {
			return map[string]string{"spec": "7"} // a custom resource, or an APIService
		}
	}
	out := map[string]string{}
	t := reflect.TypeOf(obj).Elem()
	for i := range t.NumField() {
		f := t.Field(i)
		name, _, _ := strings.Cut(f.Tag.Get("json"), ",")
		of := f.Type
		for of.Kind() == reflect.Pointer {
			of = of.Elem()
		}
		if name == "" || reflect.PointerTo(of).Implements(reflect.TypeFor[json.Unmarshaler]()) {
			continue
		}
		switch of.Kind() {
		case reflect.Struct, reflect.Map, reflect.Slice:
			out[name] = "7"
		default:
			out[name] = "[]"
		}
	}
	return out
}

// most is how long a body may be.
const most = 3 << 20

var optionFaults = []fault{
	{what: "a dry run of another sort", body: "dryRun=Frob", words: []string{"dryRun"}},
	{what: "a validation of another sort", body: "fieldValidation=Frob", words: []string{"fieldValidation"}},
	{what: "a manager without end", body: "fieldManager=" + strings.Repeat("m", 200), words: []string{"fieldManager"}},
	{what: "a manager that cannot be printed", body: "fieldManager=%00%01", words: []string{"fieldManager"}},
}

func (b *badInput) bodies(p place) {
	for method, verb := range map[string]string{"POST": "create", "PUT": "update"} {
		if !p.does(verb) {
			continue
		}
		path := p.path(p.there())
		if p.sub == "" && verb == "create" {
			path = p.path("")
		}
		for _, f := range bodyFaults(p) {
			if p.absent() {
				f.words = append(f.words, `"there" not found`)
			}
			b.refused(f.what, method, path, b.ask(method, path, f.body, f.headers...), f.words...)
		}
		for _, f := range optionFaults {
			at := path + "?" + f.body
			b.refused(f.what, method, at, b.ask(method, at, p.body(p.there(), "")), f.words...)
		}
		got := b.ask(method, path, p.body("a", `,"frob":"`+strings.Repeat("x", most)+`"`))
		b.refused("a body without end", method, path, got, fmt.Sprintf("limit is %d", most))
		if p.sub != "" || verb == "update" {
			got := b.ask(method, path, p.body("somebody", badInputMore[p.sub]))
			b.refused("somebody else's name", method, path, got, "the name of the object (somebody) does not match the name on the URL", `"there" not found`)
		}
	}
}

const (
	jsonPatch = "application/json-patch+json"
	merge     = "application/merge-patch+json"
	strategic = "application/strategic-merge-patch+json"
	apply     = "application/apply-patch+yaml"
)

// patchFaults are patches that are none, or that do not fit.
func patchFaults(p place) []fault {
	media := func(m string) []string { return []string{"Content-Type", m} }
	object := func(more string) string { return p.body(p.there(), more) }
	unsupported := "the body of the request was in an unknown format - accepted media types include: " + jsonPatch
	decoding := []string{"error decoding patch", "error decoding YAML", unsupported}
	var out []fault
	for _, m := range []string{jsonPatch, merge, strategic, apply} {
		out = append(out,
			fault{"half a patch", `{"a":`, media(m), decoding},
			fault{"no patch", "", media(m), append(decoding, "invalid object type")},
			fault{"a patch of text", "hello", media(m), decoding},
			fault{"a patch of a number", "7", media(m), decoding},
		)
	}
	for _, m := range []string{merge, strategic} {
		out = append(out,
			fault{"a patch of a list", "[1]", media(m), decoding},
			fault{"a patch to labels of another type", `{"metadata":{"labels":7}}`, media(m), []string{"labels", unsupported}},
			fault{"a patch to metadata of another type", `{"metadata":[]}`, media(m), []string{"metadata", unsupported, "json", "map"}},
			fault{"a patch to another name", `{"metadata":{"name":"somebody"}}`, media(m), []string{"somebody", unsupported, "does not match"}},
			fault{"a patch to another object", `{"metadata":{"uid":"frob"}}`, media(m), []string{"UID in precondition: frob", unsupported}},
			fault{"a patch to an older object", `{"metadata":{"resourceVersion":"1"}}`, media(m), []string{"the object has been modified", unsupported}},
		)
	}
	out = append(out,
		fault{"a patch without end", `{"a":"` + strings.Repeat("x", most) + `"}`, media(merge), []string{fmt.Sprintf("limit is %d", most)}},
		fault{"a patch to another kind", `{"kind":"Frob"}`, media(merge), []string{"Frob"}},
		fault{"a patch to another version", `{"apiVersion":"frob/v9"}`, media(merge), []string{"frob/v9"}},
		fault{"a JSON patch to another kind", `[{"op":"replace","path":"/kind","value":"Frob"}]`, media(jsonPatch), []string{"Frob"}},
		fault{"a directive that is none", `{"$patch":"frob"}`, media(strategic), []string{"frob", unsupported}},
		fault{"a JSON patch of an object", `{"op":"add"}`, media(jsonPatch), decoding},
		fault{"an operation that is none", `[{"op":"frob","path":"/metadata"}]`, media(jsonPatch), []string{"frob"}},
		fault{"a path that is none", `[{"op":"add","path":"metadata","value":1}]`, media(jsonPatch), []string{"metadata"}},
		fault{"a path to nowhere", `[{"op":"replace","path":"/frob/frob","value":1}]`, media(jsonPatch), []string{"/frob"}},
		fault{"a removal of nothing", `[{"op":"remove","path":"/metadata/frob"}]`, media(jsonPatch), []string{"frob"}},
		fault{"a test that fails", `[{"op":"test","path":"/kind","value":"Frob"}]`, media(jsonPatch), []string{"test", "/kind"}},
		fault{"a JSON patch to another type", `[{"op":"replace","path":"/metadata","value":7}]`, media(jsonPatch), []string{"metadata", "ObjectMeta"}},
		fault{"a JSON patch of the whole", `[{"op":"replace","path":"","value":7}]`, media(jsonPatch), nil},
		fault{"a patch as JSON", "{}", media("application/json"), []string{unsupported}},
		fault{"a patch of another sort", "{}", media("application/frob"), []string{unsupported}},
		fault{"a patch of media that are none", "{}", media(";;"), []string{"accepted media types include"}},
		fault{"an application of another kind", `{"apiVersion":"` + p.kind().GroupVersion().String() + `","kind":"Frob"}`, media(apply), []string{"Frob"}},
		fault{"an application of another version", `{"apiVersion":"frob/v9","kind":"` + p.Kind + `"}`, media(apply), []string{"frob/v9"}},
		fault{"an application of no kind", `{"metadata":{"labels":{"a":"b"}}}`, media(apply), []string{"kind", "Kind"}},
		fault{"an application of an unknown field", object(`,"frob":1`), media(apply), []string{".frob: field not declared in schema"}},
		fault{"an application of an unknown field of the metadata", `{"apiVersion":"` + p.kind().GroupVersion().String() + `","kind":"` + p.Kind + `","metadata":{"name":"` + p.there() + `","frob":1}}`, media(apply),
			[]string{".metadata.frob: field not declared in schema", `unknown field "metadata.frob"`, `metadata.frob`}},
		fault{"an application of metadata of another type", `{"apiVersion":"` + p.kind().GroupVersion().String() + `","kind":"` + p.Kind + `","metadata":7}`, media(apply), []string{"metadata"}},
		fault{"an application of managed fields", `{"apiVersion":"` + p.kind().GroupVersion().String() + `","kind":"` + p.Kind + `","metadata":{"name":"` + p.there() + `","managedFields":[{}]}}`, media(apply), []string{"managedFields must be nil"}},
		fault{"an application to another name", p.body("somebody", ""), media(apply), []string{"somebody", "does not match"}},
	)
	if p.sub == "scale" {
		out = append(out, fault{"an application of half a replica", object(`,"spec":{"replicas":1.5}`), media(apply), []string{"replicas", "convert"}},
			fault{"a patch to half a replica", `{"spec":{"replicas":1.5}}`, media(merge), []string{"replicas"}})
	}
	for name, wrong := range wrongFields(p.kind()) {
		if name != "metadata" {
			out = append(out, fault{"an application with " + name + " of another type", object(fmt.Sprintf(",%q:%s", name, wrong)), media(apply), []string{name}})
		}
	}
	return out
}

func (b *badInput) patches(p place) {
	if !p.does("patch") {
		return
	}
	path := p.path(p.there())
	if !p.absent() { // one that is right gets through
		right := fmt.Sprintf(`{"apiVersion":%q,"kind":%q,"metadata":{"annotations":{"a":"b"}}}`, p.kind().GroupVersion(), p.Kind)
		if got := b.ask("PATCH", path, right, "Content-Type", merge); got.code != http.StatusOK {
			b.t.Errorf("a patch with nothing wrong: %d %.600s", got.code, got.raw)
		}
	}
	for _, f := range patchFaults(p) {
		if p.absent() {
			f.words = append(f.words, `"there" not found`)
		}
		at := path
		if f.headers[1] == apply {
			at += "?fieldManager=m"
		}
		b.refused(f.what, "PATCH", at, b.ask("PATCH", at, f.body, f.headers...), f.words...)
	}
	b.refused("an application by nobody", "PATCH", path, b.ask("PATCH", path, p.body(p.there(), ""), "Content-Type", apply), "fieldManager")
	for _, f := range optionFaults {
		at := path + "?" + f.body
		b.refused(f.what, "PATCH", at, b.ask("PATCH", at, "{}", "Content-Type", merge), f.words...)
	}
	nobody := p.path("nobody")
	for m, body := range map[string]string{
		jsonPatch: `[{"op":"add","path":"/metadata/labels","value":{}}]`, merge: `{"metadata":{"labels":{"a":"b"}}}`, strategic: `{"metadata":{"labels":{"a":"b"}}}`,
	} {
		got := b.ask("PATCH", nobody, body, "Content-Type", m)
		b.refused("a patch to nobody", "PATCH", nobody, got, `"nobody" not found`, "accepted media types include: "+jsonPatch)
	}
	at := nobody + "?fieldManager=m"
	b.refused("an application of an unknown field to nobody", "PATCH", at, b.ask("PATCH", at, p.body("nobody", `,"frob":1`), "Content-Type", apply), ".frob: field not declared in schema", `"nobody" not found`)
	if p.sub != "" {
		b.refused("an application to nobody", "PATCH", at, b.ask("PATCH", at, p.body("nobody", ""), "Content-Type", apply), `"nobody" not found`)
	}
}

// connections that cannot come about, for what they ask or because the pod is on no node.
func (b *badInput) connections(p place) {
	for query, word := range badInputConnections[p.sub] {
		at := p.path(p.there()) + "?" + query
		b.refused("a connection", "GET", at, b.ask("GET", at, ""), word)
	}
}
