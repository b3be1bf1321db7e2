/* Does this board give what was found at export? Hears the first recording of golden.h, or GOLDEN_CLIPS of them, and
 * compares every score: the board agrees, or it does NOT. Its flash has to hold the recording. */
#include <edgekd.h>

#include "edgekd_report.h"

extern "C" int edgekd_verify(void);

void edgekd_report(const char *text) { Serial.print(text); }

void setup() {
  Serial.begin(115200);
  while (!Serial) {
  }
  edgekd_verify();
}

void loop() {}
