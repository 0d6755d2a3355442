package serve

import (
	"net/url"
	"strings"
	"testing"
	"time"
)

func TestSearchQuery(t *testing.T) {
	now := time.Date(2026, 3, 1, 12, 0, 0, 0, time.UTC)
	for query, want := range map[string]string{
		"search=(":                     "invalid value for search:",
		"labelSelector=a+in":           "invalid value for labelSelector:",
		"sinceTime=yesterday":          "sinceTime: parsing time",
		"sinceSeconds=-1":              "sinceSeconds: Invalid value: -1: must be greater than 0",
		"sinceSeconds=x":               "sinceSeconds: strconv.ParseInt",
		"":                             "",
		"search=&follow=&sinceTime=":   "",
		"sinceSeconds=60&follow=false": "",
	} {
		v, err := url.ParseQuery(query)
		if err != nil {
			t.Fatal(err)
		}
		_, err = searchQuery(v, now)
		if (err == nil) != (want == "") || err != nil && !strings.HasPrefix(err.Error(), want) {
			t.Errorf("%s: %v, want %s…", query, err, want)
		}
	}
	q, err := searchQuery(url.Values{"sinceSeconds": {"60"}, "labelSelector": {"app=web"}, "search": {"e+"}, "namespace": {"shop"}}, now)
	if err != nil || !q.Since.Equal(now.Add(-time.Minute)) || q.Selector.String() != "app=web" || q.Match.String() != "e+" || q.Namespace != "shop" || q.Follow {
		t.Errorf("%+v, %v", q, err)
	}
}
