package job

import (
	"slices"
	"strconv"
	"strings"

	batchv1 "k8s.io/api/batch/v1"
	corev1 "k8s.io/api/core/v1"
)

// unknown is the index of a pod that says none.
const unknown = -1

// indexes is a set of completion indexes as sorted, disjoint spans that don't touch. Its text is what status.completedIndexes holds.
type indexes []span

type span struct{ first, last int }

// parseIndexes reads "1,3-5,7" and drops what is not below limit. What cannot be read ends the reading.
func parseIndexes(text string, limit int) indexes {
	var list []int
	var set indexes
	for part := range strings.SplitSeq(text, ",") {
		from, to, isSpan := strings.Cut(part, "-")
		first, err := strconv.Atoi(from)
		last := first
		if err == nil && isSpan {
			last, err = strconv.Atoi(to)
		}
		if err != nil || first >= limit {
			break
		}
		if last = min(last, limit-1); last-first < 2 {
			for i := first; i <= last; i++ {
				list = append(list, i)
			}
			continue
		}
		set = append(set.with(list), span{first, last}).joined()
		list = nil
	}
	return set.with(list)
}

// with is the set and list's indexes besides.
func (s indexes) with(list []int) indexes {
	all := slices.Clone(s)
	for _, i := range list {
		all = append(all, span{i, i})
	}
	return all.joined()
}

func (s indexes) joined() indexes {
	slices.SortFunc(s, func(a, b span) int { return a.first - b.first })
	var out indexes
	for _, one := range s {
		if n := len(out); n > 0 && one.first <= out[n-1].last+1 {
			out[n-1].last = max(out[n-1].last, one.last)
			continue
		}
		out = append(out, one)
	}
	return out
}

func (s indexes) has(index int) bool {
	i, found := slices.BinarySearchFunc(s, index, func(one span, index int) int { return one.first - index })
	return found || i > 0 && s[i-1].last >= index
}

func (s indexes) total() (n int) {
	for _, one := range s {
		n += one.last - one.first + 1
	}
	return n
}

// common counts the indexes that are in both sets.
func (s indexes) common(other indexes) (n int) {
	for i, j := 0, 0; i < len(s) && j < len(other); {
		n += max(0, min(s[i].last, other[j].last)-max(s[i].first, other[j].first)+1)
		if s[i].last < other[j].last {
			i++
		} else {
			j++
		}
	}
	return n
}

// String writes three or more in a row as a span.
func (s indexes) String() string {
	var b strings.Builder
	for i, one := range s {
		if i > 0 {
			b.WriteByte(',')
		}
		b.WriteString(strconv.Itoa(one.first))
		switch one.last - one.first {
		case 0:
			continue
		case 1:
			b.WriteByte(',')
		default:
			b.WriteByte('-')
		}
		b.WriteString(strconv.Itoa(one.last))
	}
	return b.String()
}

func indexed(j *batchv1.Job) bool {
	return j.Spec.CompletionMode != nil && *j.Spec.CompletionMode == batchv1.IndexedCompletion
}

// indexOf is a pod's completion index.
func indexOf(p *corev1.Pod) int {
	if n, err := strconv.Atoi(p.Annotations[batchv1.JobCompletionIndexAnnotation]); err == nil && n >= 0 {
		return n
	}
	return unknown
}

// counts says whether a pod has a place in the job: any in a job without indexes, else one with an index below completions.
func counts(j *batchv1.Job, p *corev1.Pod) bool {
	i := indexOf(p)
	return !indexed(j) || i != unknown && i < int(*j.Spec.Completions)
}
