package api

import (
	"net/url"
	"reflect"
	"testing"
	"time"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
)

func TestLogOptions(t *testing.T) {
	at := time.Date(2026, 1, 2, 3, 4, 5, 600e6, time.UTC)
	for query, want := range map[string]corev1.PodLogOptions{
		"": {},
		"follow=true&previous=1&timestamps=&container=c": {Follow: true, Previous: true, Timestamps: true, Container: "c"},
		"follow=false&previous=0&timestamps=FALSE":       {},
		"tailLines=0&limitBytes=1&sinceSeconds=60":       {TailLines: new(int64(0)), LimitBytes: new(int64(1)), SinceSeconds: new(int64(60))},
		"sinceTime=2026-01-02T04:04:05.6%2B01:00":        {SinceTime: &metav1.Time{Time: at}},
		"sinceTime=null": {SinceTime: &metav1.Time{}},
		"stream=Stderr":  {Stream: new(corev1.LogStreamStderr)},
	} {
		values, err := url.ParseQuery(query)
		if err != nil {
			t.Fatal(err)
		}
		got, err := LogOptions(values)
		if err == nil && got.SinceTime != nil && !got.SinceTime.IsZero() {
			got.SinceTime = &metav1.Time{Time: got.SinceTime.UTC()} // the same moment
		}
		if err != nil || !reflect.DeepEqual(*got, want) {
			t.Errorf("%s: %+v, %v; want %+v", query, got, err, want)
		}
	}
	for query, want := range map[string]string{
		"tailLines=x":                `tailLines: strconv.ParseInt: parsing "x": invalid syntax`,
		"tailLines=all":              `tailLines: strconv.ParseInt: parsing "all": invalid syntax`,
		"limitBytes=":                `limitBytes: strconv.ParseInt: parsing "": invalid syntax`,
		"sinceSeconds=1.5":           `sinceSeconds: strconv.ParseInt: parsing "1.5": invalid syntax`,
		"sinceTime=yesterday":        `sinceTime: parsing time "yesterday" as "2006-01-02T15:04:05Z07:00": cannot parse "yesterday" as "2006"`,
		"tailLines=a&limitBytes=1e3": "tailLines: strconv.ParseInt: parsing \"a\": invalid syntax\nlimitBytes: strconv.ParseInt: parsing \"1e3\": invalid syntax",
	} {
		values, err := url.ParseQuery(query)
		if err != nil {
			t.Fatal(err)
		}
		if _, err := LogOptions(values); err == nil || err.Error() != want {
			t.Errorf("%s: %v, want %s", query, err, want)
		}
	}
}

// TestValidateLogOptions: the fields and words are upstream's.
func TestValidateLogOptions(t *testing.T) {
	for query, want := range map[string]string{
		"tailLines=0&limitBytes=1&sinceSeconds=1":       "",
		"stream=All&tailLines=1":                        "",
		"stream=Stdout":                                 "",
		"tailLines=-1":                                  "tailLines: Invalid value: -1: must be greater than or equal to 0",
		"limitBytes=0":                                  "limitBytes: Invalid value: 0: must be greater than 0",
		"sinceSeconds=0":                                "sinceSeconds: Invalid value: 0: must be greater than 0",
		"sinceSeconds=1&sinceTime=2026-01-02T03:04:05Z": "[]: Forbidden: at most one of `sinceTime` or `sinceSeconds` may be specified",
		"stream=stdout":                                 `stream: Unsupported value: "stdout": supported values: "All", "Stderr", "Stdout"`,
		"stream=Stderr&tailLines=1":                     "[]: Forbidden: `tailLines` and specific `stream` are mutually exclusive for now",
	} {
		values, err := url.ParseQuery(query)
		if err != nil {
			t.Fatal(err)
		}
		o, err := LogOptions(values)
		if err != nil {
			t.Fatal(err)
		}
		got := ""
		if errs := ValidateLogOptions(o); len(errs) > 0 {
			got = errs.ToAggregate().Error()
		}
		if got != want {
			t.Errorf("%s: %s, want %s", query, got, want)
		}
	}
}
