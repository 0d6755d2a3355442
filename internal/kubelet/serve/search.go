package serve

import (
	"encoding/json"
	"fmt"
	"net/http"
	"net/url"
	"regexp"
	"time"

	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/labels"

	"skiff.dev/skiff/internal/kubelet/logs"
)

// search answers with a JSON object a line. The pods of all namespaces are searched, which is why only those who may read everything of a
// node get here.
func (s *Server) search(w http.ResponseWriter, r *http.Request) {
	q, err := searchQuery(r.URL.Query(), time.Now())
	if err != nil {
		badRequest(w, err)
		return
	}
	w.Header().Set("Content-Type", "application/x-ndjson")
	out := json.NewEncoder(w)
	flush := http.NewResponseController(w)
	live := false
	err = s.cfg.Search(r.Context(), q, func(l *logs.Line) error {
		err := out.Encode(l)
		if live = live || l.Live; live && err == nil {
			err = flush.Flush()
		}
		return err
	})
	if err != nil && r.Context().Err() == nil {
		s.cfg.Log.Warn("cannot go on searching logs", "err", err)
		panic(http.ErrAbortHandler) // so that the answer isn't taken for a whole one
	}
}

// badRequest answers with a Status, unlike the kubelet's other errors: what comes through the node's proxy is read by API clients.
func badRequest(w http.ResponseWriter, err error) {
	status := apierrors.NewBadRequest(err.Error()).Status()
	status.TypeMeta = metav1.TypeMeta{APIVersion: "v1", Kind: "Status"}
	w.Header().Set("Content-Type", "application/json")
	w.WriteHeader(http.StatusBadRequest)
	_ = json.NewEncoder(w).Encode(status)
}

// searchQuery reads the parameters namespace, labelSelector and search, and, as those of one log are read, sinceSeconds, sinceTime and follow.
func searchQuery(v url.Values, now time.Time) (q logs.Query, err error) {
	q.Namespace = v.Get("namespace")
	if q.Selector, err = labels.Parse(v.Get("labelSelector")); err != nil {
		return q, fmt.Errorf("invalid value for labelSelector: %w", err)
	}
	if text := v.Get("search"); text != "" {
		if q.Match, err = regexp.Compile(text); err != nil {
			return q, fmt.Errorf("invalid value for search: %w", err)
		}
	}
	asked, err := logOptions(v)
	if err != nil {
		return q, err
	}
	o := logs.OptionsFrom(asked, now)
	q.Since, q.Follow = o.Since, o.Follow
	return q, nil
}
